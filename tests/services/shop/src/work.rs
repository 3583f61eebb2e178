//! Real work that takes a set amount of *CPU* time, whatever the clock on the wall says:
//! under a quota it takes longer, as any program would.

use std::{hint::black_box, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// CPU time this thread has used.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// Prices a basket over and over until this thread has used `cpu` more of CPU time.
/// Returns the price, so that nothing is optimised away.
pub fn price(cpu: Duration) -> u64 {
    let end = thread_cpu() + cpu;
    let mut total = 0_u64;
    while thread_cpu() < end {
        for item in 0..2_000_u64 {
            total = black_box(total.wrapping_mul(31).wrapping_add(item ^ (total >> 7)));
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_cpu_time_it_was_asked_for() {
        let before = thread_cpu();
        price(Duration::from_millis(20));
        assert!(thread_cpu() - before >= Duration::from_millis(20));
    }
}
