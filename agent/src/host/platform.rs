//! What the machine is: CPUID, DMI, buses, devices.
