//! What happens to a machine under a running agent: its wall clock is set, a CPU is taken away, it
//! sleeps. Only on a machine that is the test's own, as the guests of `cargo xtask vm` are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "machine_sensor/agent.rs"]
mod agent;
#[allow(dead_code, reason = "not every method is of use here")]
#[path = "support/cgroup.rs"]
mod cgroup;
#[path = "support/child.rs"]
mod child;
#[path = "machine_sensor/clock.rs"]
mod clock;
#[allow(dead_code, reason = "not every method is of use here")]
#[path = "support/observed.rs"]
mod observed;
#[path = "machine_sensor/unplug.rs"]
mod unplug;

/// Whether the machine is the test's own. Where not, that is said.
fn is_own() -> bool {
    let is_own = std::env::var_os("OWN_MACHINE").is_some();
    if !is_own {
        println!("cannot run here: others use this machine too");
    }
    is_own
}
