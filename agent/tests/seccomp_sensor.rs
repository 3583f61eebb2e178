//! The `seccomp` sensor in the running kernel against programs that know how many of their
//! system calls are refused. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "limits are for other test programs")]
#[path = "support/cgroup.rs"]
mod cgroup;
#[allow(dead_code, reason = "its pid is for other test programs")]
#[path = "support/child.rs"]
mod child;
#[path = "support/filter.rs"]
mod filter;
#[allow(dead_code, reason = "histograms are for other test programs")]
#[path = "support/observed.rs"]
mod observed;

use cgroup::Group;
use child::Child;
use isostack_agent::{
    event::{Delay, Particulars},
    load::Settings,
    sensor::{Activation, seccomp::SeccompMode},
    vocabulary::Cause,
};
use observed::{Observed, Seen};

/// Refused and allowed system calls of each load.
const REFUSED: u64 = 200;
const ALLOWED: u64 = 300;

const FAMILY: &str = "isostack_seccomp_denials";

/// What the sensor says of a child that runs `load`.
fn seen(mode: SeccompMode, load: impl FnOnce()) -> Seen {
    let group = Group::new();
    let observed = Observed::start(
        "seccomp",
        &Settings {
            seccomp: mode,
            ..Settings::default()
        },
    );
    Child::start(&group, load).wait();
    observed.finish(group.id())
}

fn count(seen: &Seen) -> Vec<(String, String, u64)> {
    let counts = seen.counts(FAMILY).into_iter();
    counts
        .map(|(labels, n)| (labels[0].clone(), labels[1].clone(), n))
        .collect()
}

fn refused(action: &str, n: u64) -> Vec<(String, String, u64)> {
    vec![("personality".to_owned(), action.to_owned(), n)]
}

fn calls() {
    for n in 0..REFUSED.max(ALLOWED) {
        if n < REFUSED {
            filter::refused_call();
        }
        if n < ALLOWED {
            filter::allowed_calls();
        }
    }
}

#[test]
fn each_refusal_is_counted_once_and_named_whatever_error_it_gives() {
    for error in [libc::EPERM, libc::ENOSYS, 0] {
        let seen = seen(SeccompMode::On, || {
            filter::install(libc::SECCOMP_RET_ERRNO | error.unsigned_abs());
            calls();
        });
        assert_eq!(count(&seen), refused("errno", REFUSED), "errno {error}");
        let denied = |delay: &&Delay| delay.cause == Cause::SeccompDenied;
        let denials: Vec<&Delay> = seen.delays.iter().filter(denied).collect();
        assert_eq!(denials.len() as u64, REFUSED);
        for delay in denials {
            let Particulars::SystemCall(call) = &delay.particulars else {
                panic!("{delay:?}");
            };
            assert_eq!(
                (call.name.as_str(), call.action.as_str()),
                ("personality", "errno")
            );
        }
    }
}

#[test]
fn a_trap_a_tracer_and_a_supervisor_refuse_too() {
    let trapped = seen(SeccompMode::On, || {
        filter::catch(libc::SIGSYS);
        filter::install(libc::SECCOMP_RET_TRAP);
        calls();
    });
    assert_eq!(count(&trapped), refused("trap", REFUSED));
    let traced = seen(SeccompMode::On, || {
        filter::install(libc::SECCOMP_RET_TRACE);
        calls();
    });
    assert_eq!(
        count(&traced),
        refused("errno", REFUSED),
        "there is no tracer, and so it fails"
    );
    let supervised = seen(SeccompMode::On, || {
        filter::supervised(REFUSED, calls);
    });
    assert_eq!(count(&supervised), refused("errno", REFUSED));
}

#[test]
fn what_a_filter_lets_pass_is_no_refusal() {
    let logged = seen(SeccompMode::On, || {
        filter::install(libc::SECCOMP_RET_LOG);
        calls();
    });
    assert_eq!(count(&logged), []);
    let unfiltered = seen(SeccompMode::On, calls);
    assert_eq!(count(&unfiltered), []);
}

#[test]
fn a_refusal_that_kills_is_told_of_the_dead() {
    for action in [
        libc::SECCOMP_RET_KILL_PROCESS,
        libc::SECCOMP_RET_KILL_THREAD,
    ] {
        let seen = seen(SeccompMode::On, || {
            filter::install(action);
            calls();
        });
        assert_eq!(count(&seen), refused("kill", 1), "{action:#x}");
    }
}

#[test]
fn forks_threads_programs_and_signals_are_not_taken_for_refusals() {
    let seen = seen(SeccompMode::On, || {
        filter::catch(libc::SIGALRM);
        filter::install(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs());
        filter::alarm_every_ms(1);
        let children: Vec<i32> = (0..10)
            .map(|_| filter::fork(|| (0..10).for_each(|_| filter::refused_call())))
            .collect();
        let threads: Vec<_> = (0..10)
            .map(|_| std::thread::spawn(|| (0..10).for_each(|_| filter::refused_call())))
            .collect();
        filter::sleep_ms(50);
        threads.into_iter().for_each(|t| drop(t.join()));
        children.into_iter().for_each(filter::wait);
        // A new program under the same filter: refuses nothing, makes many calls.
        filter::wait(filter::fork(filter::exec_true));
    });
    assert_eq!(count(&seen), refused("errno", 200));
}

#[test]
fn on_demand_it_sees_what_happens_while_it_is_wanted_and_nothing_before() {
    let group = Group::new();
    let observed = Observed::start("seccomp", &Settings::default());
    let status = observed.sensors.statuses();
    let status = status.iter().find(|s| s.name == "seccomp").unwrap();
    assert!(status.hook.contains("while"), "{status:?}");
    let load = || {
        filter::install(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs());
        calls();
    };
    Child::start(&group, load).wait();
    observed.sensors.demand(Activation::WhileFiltered, true);
    Child::start(&group, load).wait();
    observed.sensors.demand(Activation::WhileFiltered, false);
    Child::start(&group, load).wait();
    let seen = observed.finish(group.id());
    assert_eq!(count(&seen), refused("errno", REFUSED));
}
