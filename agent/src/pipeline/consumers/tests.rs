use super::*;

const S: u64 = 1_000_000_000;

fn of(resource: Resource, cgroup_id: u64, start: u64, end: u64, amount: u64) -> Consumption {
    Consumption {
        resource,
        start: MonoNs(start),
        end: MonoNs(end),
        amount,
        cgroup_id,
        consumer: None,
    }
}

const HOST: Resource = Resource::Memory { memcg: false };

fn amounts(consumers: &Consumers, start: u64, end: u64) -> Vec<(u64, f64)> {
    let had = consumers.within(&HOST, &[(start, end)]);
    had.iter().map(|had| (had.cgroup_id, had.amount)).collect()
}

#[test]
fn what_lies_partly_in_a_window_counts_in_part_in_whatever_order_it_came() {
    let mut consumers = Consumers::default();
    for (id, start, end, amount) in [
        (1, 100, 200, 50),
        (2, 0, 1_000, 1_000),
        (1, 150, 170, 4),
        (3, 160, 160, 7),
    ] {
        let of = of(HOST, id, start, end, amount);
        consumers.add(&of, MonoNs(0), MonoNs(1_000)).unwrap();
    }
    let mut found = amounts(&consumers, 150, 250);
    found.sort_by_key(|(id, _)| *id);
    assert_eq!(found, [(1, 29.0), (2, 100.0), (3, 7.0)]);
    assert_eq!(amounts(&consumers, 2_000, 3_000), []);
    let twice = consumers.within(&HOST, &[(100, 150), (150, 200)]);
    assert_eq!(
        twice
            .iter()
            .find(|had| had.cgroup_id == 1)
            .map(|had| had.amount),
        Some(54.0)
    );
}

#[test]
fn what_cannot_be_is_refused_and_what_is_old_forgotten() {
    let mut consumers = Consumers::default();
    let (horizon, now) = (MonoNs(10 * S), MonoNs(100 * S));
    for (start, end, expected) in [
        (2, 1, Err(Dropped::Empty)),
        (5 * S, 9 * S, Err(Dropped::TooOld)),
        (5 * S, 102 * S, Err(Dropped::Future)),
        (5 * S, 20 * S, Ok(())),
    ] {
        let of = of(HOST, 1, start, end, 1);
        assert_eq!(consumers.add(&of, horizon, now), expected);
    }
    consumers.expire(MonoNs(20 * S));
    assert_eq!(amounts(&consumers, 0, 100 * S).len(), 1);
    consumers.expire(MonoNs(20 * S + 1));
    assert_eq!(amounts(&consumers, 0, 100 * S), []);
}

#[test]
fn a_flood_of_stretches_and_resources_is_bounded_and_counted() {
    let mut consumers = Consumers::default();
    let now = MonoNs(u64::MAX / 2);
    for n in 0..MAX_STRETCHES as u64 + 10 {
        consumers
            .add(&of(HOST, n % 1_000, n, n + 1, 1), MonoNs(0), now)
            .unwrap();
    }
    assert_eq!(consumers.take_evicted(), 10);
    assert!(amounts(&consumers, 0, u64::MAX).len() <= MAX_CONSUMERS);
    for n in 0..MAX_RESOURCES as u64 + 5 {
        let disk = crate::event::Disk {
            name: format!("d{n}"),
            paravirtual: false,
        };
        let at = 1 << 40 | n;
        let of = of(Resource::Disk(Arc::new(disk)), 1, at, at + 1, 1);
        consumers.add(&of, MonoNs(0), now).unwrap();
    }
    assert_eq!(consumers.by_resource.len(), MAX_RESOURCES);
    // The memory's were the oldest.
    assert_eq!(consumers.take_evicted(), MAX_STRETCHES as u64 + 5);
}
