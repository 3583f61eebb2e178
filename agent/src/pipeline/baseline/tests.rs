use super::*;

fn split(self_ms: u64, throttle_ms: u64) -> Split {
    let mut parts = vec![
        (Cause::CpuThrottle, throttle_ms * 1_000_000),
        (Cause::Unexplained, (self_ms - throttle_ms) * 1_000_000),
    ];
    parts.retain(|(_, ns)| *ns > 0);
    Split {
        self_time_ns: self_ms * 1_000_000,
        parts: parts.into(),
        downstream_ns: 0,
    }
}

fn baselines(capacity: usize) -> Baselines {
    Baselines::new(capacity, 7)
}

fn ms(usual: Option<Usual>) -> Option<(u64, u64)> {
    usual.map(|usual| (usual.median_ns / 1_000_000, usual.high_ns / 1_000_000))
}

#[test]
fn nothing_is_usual_before_enough_spans() {
    let mut baselines = baselines(8);
    let key = baselines.key("shop", b"GET /cart");
    for _ in 1..WARM {
        baselines.learn(key, &split(10, 1));
    }
    assert_eq!(baselines.self_time(key), None);
    assert_eq!(baselines.whole(key), None);
    baselines.learn(key, &split(10, 1));
    assert_eq!(ms(baselines.self_time(key)), Some((10, 10)));
    assert_eq!(ms(baselines.cause(key, Cause::CpuThrottle)), Some((1, 1)));
    assert_eq!(ms(baselines.cause(key, Cause::Runqueue)), Some((0, 0)));
}

#[test]
fn outliers_and_spans_without_the_cause_count_as_what_they_are() {
    let mut baselines = baselines(8);
    let key = baselines.key("shop", b"GET /cart");
    let throttled = |baselines: &Baselines| ms(baselines.cause(key, Cause::CpuThrottle));
    for n in 0..200 {
        // One in four is slow, throttled, and for a while: still not the median.
        let slow = n % 4 == 0;
        baselines.learn(key, &if slow { split(900, 800) } else { split(10, 0) });
    }
    assert_eq!(ms(baselines.self_time(key)), Some((10, 900)));
    assert_eq!(throttled(&baselines), Some((0, 800)));
    for _ in 0..SAMPLES {
        baselines.learn(key, &split(20, 15));
    }
    assert_eq!(throttled(&baselines), Some((15, 15)));
    for _ in 0..SAMPLES {
        baselines.learn(key, &split(10, 0));
    }
    assert_eq!(throttled(&baselines), Some((0, 0)));
}

#[test]
fn two_outliers_are_beyond_the_high_end_and_a_third_is_not() {
    for samples in [WARM, 30, SAMPLES as u64] {
        let mut baselines = baselines(8);
        let key = baselines.key("shop", b"GET /cart");
        for n in 0..samples - 3 {
            baselines.learn(key, &split(10 + n % 2, 0));
        }
        baselines.learn(key, &split(10, 0));
        baselines.learn(key, &split(500, 0));
        baselines.learn(key, &split(700, 0));
        assert_eq!(ms(baselines.self_time(key)).unwrap().1, 11, "{samples}");
        baselines.learn(key, &split(600, 0));
        assert_eq!(ms(baselines.self_time(key)).unwrap().1, 500, "{samples}");
    }
}

#[test]
fn downstream_is_learned_beside_the_self_time() {
    let mut baselines = baselines(8);
    let key = baselines.key("shop", b"GET /cart");
    let with_child = Split {
        downstream_ns: 30_000_000,
        ..split(10, 0)
    };
    for _ in 0..WARM {
        baselines.learn(key, &with_child);
    }
    assert_eq!(ms(baselines.whole(key)), Some((40, 40)));
    assert_eq!(ms(baselines.self_time(key)), Some((10, 10)));
    assert_eq!(ms(baselines.cause(key, Cause::Downstream)), Some((30, 30)));
}

#[test]
fn what_stays_slow_becomes_usual_after_a_while() {
    let mut baselines = baselines(8);
    let key = baselines.key("shop", b"GET /cart");
    for _ in 0..SAMPLES {
        baselines.learn(key, &split(10, 0));
    }
    let until_usual = (0..10_000).take_while(|_| {
        baselines.learn_slow(key, &split(100, 0));
        ms(baselines.self_time(key)).unwrap().0 < 100
    });
    let count = until_usual.count() as u64;
    assert_eq!(count / SLOW_IN, SAMPLES as u64 / 2 - 1);
}

#[test]
fn names_are_told_apart_and_those_unused_make_room() {
    let mut baselines = baselines(16);
    assert_ne!(baselines.key("a", b"bc"), baselines.key("ab", b"c"));
    assert_eq!(baselines.key("a", b"b"), baselines.key("a", b"b"));
    assert_ne!(
        baselines.key("a", b"b"),
        Baselines::new(16, 8).key("a", b"b"),
        "the seed counts"
    );
    let busy = baselines.key("shop", b"busy");
    for n in 0..1_000u32 {
        baselines.learn(busy, &split(10, 0));
        let rare = baselines.key("shop", &n.to_be_bytes());
        baselines.learn(rare, &split(10, 0));
        assert!(baselines.len() <= 16);
    }
    assert_eq!(ms(baselines.self_time(busy)), Some((10, 10)));
    let mut one = Baselines::new(1, 7);
    for n in 0..10u32 {
        one.learn(one.key("shop", &n.to_be_bytes()), &split(10, 0));
        assert_eq!(one.len(), 1);
    }
}

/// Ten million names, and no more memory than for the first thousands.
#[test]
fn distinct_operations_without_end_are_bounded() {
    let mut baselines = baselines(2_000);
    let split = split(10, 1);
    for n in 0..10_000_000u32 {
        let key = baselines.key("shop", &n.to_be_bytes());
        if n % 64 == 0 {
            baselines.learn(key, &split);
        } else {
            // Looked up as each span does; nothing is made of a name only.
            assert_eq!(baselines.self_time(key), None);
        }
    }
    assert!(baselines.len() <= 2_000);
    assert!(baselines.operations.capacity() <= 8_000);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut before = baselines(16);
    for n in 0..30u32 {
        let key = before.key("shop", &n.to_be_bytes());
        for _ in 0..=WARM {
            before.learn(key, &split(10 + u64::from(n), 2));
            before.learn_slow(key, &split(500, 0));
        }
    }
    let text = serde_json::to_string(&before.save()).unwrap();
    let saved: Saved = serde_json::from_str(&text).unwrap();
    let after = Baselines::restore(16, saved.clone()).unwrap();
    assert_eq!(after.save(), before.save());
    let last = after.key("shop", &29u32.to_be_bytes());
    assert_eq!(after.self_time(last), before.self_time(last));
    assert!(after.self_time(last).is_some());

    let few = Baselines::restore(2, saved.clone()).unwrap();
    assert_eq!(few.len(), 2);
    assert!(few.self_time(last).is_some(), "the latest are kept");

    let other = Saved {
        check: saved.check ^ 1,
        ..saved.clone()
    };
    assert_eq!(
        Baselines::restore(16, other).unwrap_err(),
        Unusable::OtherHash
    );
    let mut short = saved.clone();
    short.operations[0].whole.pop();
    assert_eq!(
        Baselines::restore(16, short).unwrap_err(),
        Unusable::Samples
    );
    let mut twice = saved;
    let cause = twice.operations[0].causes[0].clone();
    twice.operations[0].causes.push(cause);
    assert_eq!(
        Baselines::restore(16, twice).unwrap_err(),
        Unusable::Samples
    );
}
