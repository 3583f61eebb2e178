//! The compiled object: its constants filled in, its maps created.

use std::{fs, io, sync::Arc};

use agent_common::{context::TRACES_MAP, cpu::CpuSlot};
use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};

use super::{
    Settings, cgroups::CgroupTables, contexts::ContextPlaces, demand::OnDemand,
    series::SeriesTables, traces_map, tracked::Tracked,
};
use crate::{
    host::{
        btf::{FieldOffsets, KernelTypes},
        devices::Devices,
        roots::Roots,
    },
    sensor::{Decoder, Kernel, SENSORS, WhyNot, seccomp::SeccompMode},
};

/// Built by `cargo xtask ebpf` from `agent-ebpf`; `build.rs` checks that it is up to date.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../agent-ebpf/agent-ebpf.bpf.o"
));

/// Largest pid that any kernel gives (`PID_MAX_LIMIT`).
const PID_MAX_LIMIT: u32 = 1 << 22;
/// Per-CPU slots over all CPUs: bounds the kernel memory to about 9 MB up to 128 CPUs.
const TOTAL_SLOTS: usize = 16 * 1024;

/// The object with its maps, before or after its programs are loaded.
pub struct Object {
    /// Programs and maps.
    pub ebpf: Ebpf,
    /// The kernel's types as aya wants them.
    pub btf: Btf,
    /// Where the kernel's members are.
    pub fields: FieldOffsets,
    /// The kernel's types, by name.
    pub types: KernelTypes,
    /// Where `/proc` and `/sys` are.
    pub roots: Roots,
    /// The network devices that the programs met.
    pub devices: Arc<Devices>,
    /// When the seccomp sensor runs.
    pub seccomp: SeccompMode,
    /// See [`Settings::last_hooks`].
    pub last_hooks: bool,
    /// The sensors that were started.
    pub on_demand: OnDemand,
    pid_max: u32,
    /// Other instrumentation says which trace each thread works on.
    has_traces: bool,
}

impl Object {
    /// Resolves the kernel's members and creates the maps. Loads no program.
    pub fn load(settings: &Settings) -> Result<Self, WhyNot> {
        let roots = &settings.roots;
        let types = KernelTypes::read(&roots.sysfs).map_err(|error| WhyNot {
            reason: error.to_string(),
            fix: "use a kernel built with CONFIG_DEBUG_INFO_BTF, and let the agent see its \
                  /sys (--sysfs)"
                .to_owned(),
        })?;
        let fields = types.fields();
        let arguments = types.arguments();
        let btf = Btf::parse_file(
            roots.sysfs.join("kernel/btf/vmlinux"),
            Endianness::default(),
        )
        .map_err(|error| WhyNot {
            reason: format!("cannot read the kernel's type information: {error}"),
            fix: "use a kernel built with CONFIG_DEBUG_INFO_BTF".to_owned(),
        })?;

        let pid_max = fs::read_to_string(roots.procfs.join("sys/kernel/pid_max"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .map_or(PID_MAX_LIMIT, |max: u32| max.clamp(64, PID_MAX_LIMIT));
        let cpus = aya::util::nr_cpus().map_or(128, |cpus| cpus.max(1));
        let slots = slots_per_cpu(cpus);
        let slot_mask = slots - 1;
        let v1 = u32::from(cpu_controller_is_v1(settings));
        // Both program types that ask have the same helpers, and only one can be asked.
        let task_pt_regs = u32::from(
            is_helper_supported(ProgramType::RawTracePoint, BpfHelper::BPF_FUNC_task_pt_regs)
                .unwrap_or(false),
        );
        let wake_bytes = u64::from(settings.ring_bytes) / 4;
        let log_level = if settings.kernel_debug {
            aya_log::Level::Debug as u8
        } else {
            0
        };

        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(&btf))
            .map_max_entries("EVENTS", settings.ring_bytes)
            .map_max_entries("TRACKED", pid_max.div_ceil(64))
            .map_max_entries("CPU_SLOTS", slots)
            .override_global("CPU_SLOT_MASK", &slot_mask, true)
            .override_global("CPU_CONTROLLER_V1", &v1, true)
            .override_global("HAS_TASK_PT_REGS", &task_pt_regs, true)
            .override_global("EVENTS_WAKE_BYTES", &wake_bytes, true)
            .override_global(aya_log::LEVEL, &log_level, false);
        for (symbol, offset) in fields.iter() {
            loader.override_global(symbol, offset, true);
        }
        // No device was met yet.
        let nothing = Arc::new(Devices::none(&roots.sysfs));
        let kernel = Kernel {
            fields: &fields,
            types: &types,
            roots,
            devices: &nothing,
        };
        let constants: Vec<(&str, u64)> = SENSORS
            .iter()
            .filter_map(|entry| entry.sensor)
            .flat_map(|sensor| sensor.constants(&kernel))
            .collect();
        for (symbol, value) in &constants {
            loader.override_global(symbol, value, true);
        }
        for (symbol, present) in &arguments {
            loader.override_global(symbol, present, true);
        }
        let traces = traces_map::find(roots);
        match &traces {
            Some(path) => {
                tracing::info!(path = %path.display(), "Reads the traces of other instrumentation");
                loader.map_pin_path(TRACES_MAP, path.as_path());
            }
            None => {
                loader.map_max_entries(TRACES_MAP, 1);
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| WhyNot {
            reason: format!("the kernel refused the agent's maps: {}", chain(&error)),
            fix: "look for a limit on locked or kernel memory, and for a security module that \
                  forbids bpf()"
                .to_owned(),
        })?;
        drop(loader);
        let describe = super::devices::describe(&mut ebpf).map_err(|error| WhyNot {
            reason: error.to_string(),
            fix: "rebuild the agent".to_owned(),
        })?;
        let devices = Arc::new(Devices::new(&roots.sysfs, describe));
        let kernel = Kernel {
            fields: &fields,
            types: &types,
            roots,
            devices: &devices,
        };
        let sensors = SENSORS.iter().filter_map(|entry| entry.sensor);
        let arrays = sensors.flat_map(|sensor| sensor.arrays(&kernel));
        fill_arrays(&mut ebpf, arrays).map_err(|error| WhyNot {
            reason: format!("the kernel refused to fill the agent's maps: {error}"),
            fix: "report the kernel's version".to_owned(),
        })?;
        Ok(Self {
            ebpf,
            btf,
            fields,
            types,
            roots: roots.clone(),
            devices,
            seccomp: settings.seccomp,
            last_hooks: settings.last_hooks,
            on_demand: OnDemand::default(),
            pid_max,
            has_traces: traces.is_some(),
        })
    }

    /// The set of tracked thread groups.
    pub fn tracked(&mut self) -> io::Result<Tracked> {
        let map = self.take("TRACKED")?;
        Ok(Tracked::new(
            Array::try_from(map).map_err(wrong)?,
            self.pid_max,
        ))
    }

    /// Where processes publish their threads' contexts.
    pub fn contexts(&mut self) -> io::Result<ContextPlaces> {
        let map = self.take("CONTEXT_PLACES")?;
        let map = HashMap::try_from(map).map_err(wrong)?;
        Ok(ContextPlaces::new(map, self.has_traces))
    }

    /// What the kernel side asks for.
    pub fn wanted(&mut self) -> io::Result<Array<MapData, u64>> {
        Array::try_from(self.take("WANTED")?).map_err(wrong)
    }

    /// The tables of cgroups.
    pub fn cgroups(&mut self) -> io::Result<CgroupTables> {
        let slots: PerCpuArray<_, CpuSlot> =
            PerCpuArray::try_from(self.take("CPU_SLOTS")?).map_err(wrong)?;
        let totals = self.take("CPU_TOTALS")?;
        let capacity = capacity(&totals);
        let totals = HashMap::try_from(totals).map_err(wrong)?;
        Ok(CgroupTables::new(slots, totals, capacity))
    }

    /// The knobs that thin sensors, by sensor id.
    pub fn thinning(&mut self) -> io::Result<Array<MapData, u32>> {
        Array::try_from(self.take("THINNING")?).map_err(wrong)
    }

    /// The tables of counters and histograms.
    pub fn series(&mut self) -> io::Result<SeriesTables> {
        let (histograms, counters) = (self.take("HISTOGRAMS")?, self.take("COUNTERS")?);
        let capacities = [capacity(&histograms), capacity(&counters)];
        let histograms = HashMap::try_from(histograms).map_err(wrong)?;
        let counters = HashMap::try_from(counters).map_err(wrong)?;
        let decoder = Decoder::new(&self.kernel());
        Ok(SeriesTables::new(histograms, counters, capacities, decoder))
    }

    fn take(&mut self, name: &'static str) -> io::Result<aya::maps::Map> {
        take(&mut self.ebpf, name)
    }
}

/// Takes a map out of the object.
pub fn take(ebpf: &mut Ebpf, name: &'static str) -> io::Result<aya::maps::Map> {
    ebpf.take_map(name).ok_or_else(|| no_map(name))
}

/// A map is not what the code takes it for: only a mismatch of object and agent can do that.
pub fn wrong(error: MapError) -> io::Error {
    io::Error::other(error)
}

/// What only user space can know.
pub fn fill_arrays(
    ebpf: &mut Ebpf,
    arrays: impl IntoIterator<Item = (&'static str, Vec<u32>)>,
) -> io::Result<()> {
    for (name, values) in arrays {
        let map = ebpf.map_mut(name).ok_or_else(|| no_map(name))?;
        let mut array: Array<_, u32> = Array::try_from(map).map_err(wrong)?;
        for (index, value) in (0..).zip(values) {
            if value != 0 {
                array.set(index, value, 0).map_err(wrong)?;
            }
        }
    }
    Ok(())
}

fn no_map(name: &str) -> io::Error {
    io::Error::other(format!("the eBPF object has no map {name}"))
}

/// Entries that a hash table has room for; 0 where the kernel does not say.
fn capacity(map: &aya::maps::Map) -> u32 {
    match map {
        aya::maps::Map::HashMap(data) => data.info().map_or(0, |info| info.max_entries()),
        _ => 0,
    }
}

fn slots_per_cpu(cpus: usize) -> u32 {
    let share = (TOTAL_SLOTS / cpus).next_power_of_two();
    u32::try_from(share.clamp(128, 1024)).expect("at most 1024")
}

/// The CPU controller sits on a version 1 hierarchy if the list of hierarchies names it.
fn cpu_controller_is_v1(settings: &Settings) -> bool {
    fs::read_to_string(settings.roots.procfs.join("self/cgroup")).is_ok_and(|text| {
        text.lines()
            .filter_map(|line| line.split(':').nth(1))
            .any(|controllers| controllers.split(',').any(|name| name == "cpu"))
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}
