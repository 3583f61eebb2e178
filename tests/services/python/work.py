"""What the services have in common: work that takes a known time of the CPU."""

import time


def burn(cpu_ms):
    """Uses so many milliseconds of this thread's CPU time, whatever the wall clock says."""
    end = time.thread_time_ns() + int(cpu_ms * 1_000_000)
    total = 0
    while time.thread_time_ns() < end:
        for number in range(500):
            total = (total * 31 + number) & 0xFFFFFFFF
    return total
