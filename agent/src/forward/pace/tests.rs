use super::*;

fn wait(pace: &Pace, now: Instant) -> Duration {
    pace.not_before().map_or(Duration::ZERO, |at| at - now)
}

#[test]
fn waits_double_up_to_a_limit_and_start_anew_after_a_success() {
    for (misconfigured, first_ms, longest_ms) in [(false, 100, 10_000), (true, 1000, 30_000)] {
        let mut pace = Pace::default();
        let now = Instant::now();
        let mut expected = first_ms;
        for _ in 0..20 {
            pace.failed(pace.epoch(), now, misconfigured);
            let waited = wait(&pace, now).as_millis();
            assert!(
                (expected / 2..=expected).contains(&waited),
                "{waited} {expected}"
            );
            expected = (expected * 2).min(longest_ms);
        }
        assert!(pace.failing());
        pace.succeeded(pace.epoch(), now);
        assert!(!pace.failing());
        assert_eq!(pace.not_before(), None);
    }
}

#[test]
fn attempts_of_one_epoch_fail_once() {
    let mut pace = Pace::default();
    let (now, epoch) = (Instant::now(), pace.epoch());
    pace.failed(epoch, now, false);
    let once = pace.not_before();
    pace.failed(epoch, now, false);
    pace.failed(epoch, now, false);
    assert_eq!(pace.not_before(), once);
    // One that was under way with them and succeeded says nothing about now.
    pace.succeeded(epoch, now);
    assert!(pace.failing());
}

#[test]
fn a_wait_that_was_asked_for_outlasts_successes_and_stopping() {
    let mut pace = Pace::default();
    let now = Instant::now();
    pace.failed(pace.epoch(), now, false);
    pace.throttled(now, Duration::from_secs(5));
    pace.throttled(now, Duration::from_secs(2));
    pace.succeeded(pace.epoch(), now);
    assert_eq!(wait(&pace, now), Duration::from_secs(5));
    pace.stop();
    assert_eq!(wait(&pace, now), Duration::from_secs(5));
    pace.succeeded(pace.epoch(), now + Duration::from_secs(5));
    assert_eq!(pace.not_before(), None);
}

#[test]
fn own_waits_are_short_while_stopping() {
    let mut pace = Pace::default();
    let now = Instant::now();
    for _ in 0..10 {
        pace.failed(pace.epoch(), now, true);
    }
    pace.stop();
    assert_eq!(pace.not_before(), None);
    pace.failed(pace.epoch(), now, true);
    assert!(wait(&pace, now) <= STOPPING);
}
