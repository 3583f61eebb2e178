//! Who consumed what the victim waited for: the neighbour that had most of it, if the
//! neighbours had most of it.

use crate::event::Particulars;

/// The culprit's name; empty where it is the victim itself, or not known. `waits` are the
/// single delays of the verdict's cause with their length in nanoseconds, `victim_cgroup_id`
/// is where the victim lives.
#[must_use]
pub fn name<'a>(
    waits: impl Iterator<Item = (&'a Particulars, u64)>,
    victim_cgroup_id: u64,
) -> String {
    let mut all_ns = 0u64;
    let mut of_others = 0u64;
    let mut neighbours: Vec<(u64, &str, u64)> = Vec::new();
    for (particulars, ns) in waits {
        all_ns = all_ns.saturating_add(ns);
        let Particulars::Neighbour(neighbour) = particulars else {
            continue;
        };
        if neighbour.cgroup_id == victim_cgroup_id {
            continue;
        }
        of_others = of_others.saturating_add(ns);
        match neighbours
            .iter_mut()
            .find(|(id, ..)| *id == neighbour.cgroup_id)
        {
            Some((.., sum)) => *sum = sum.saturating_add(ns),
            None => neighbours.push((neighbour.cgroup_id, &neighbour.name, ns)),
        }
    }
    if of_others < all_ns.div_ceil(2) {
        return String::new();
    }
    // Of equals the first, so that the same input gives the same answer.
    let most = neighbours.into_iter().rev().max_by_key(|(.., sum)| *sum);
    most.map_or_else(String::new, |(_, name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Neighbour;

    fn neighbour(cgroup_id: u64) -> Particulars {
        Particulars::Neighbour(Arc::new(Neighbour {
            cgroup_id,
            name: format!("n{cgroup_id}"),
        }))
    }

    fn culprit(waits: &[(Particulars, u64)]) -> String {
        name(waits.iter().map(|(p, ns)| (p, *ns)), 1)
    }

    #[test]
    fn the_one_that_had_most_is_named() {
        assert_eq!(
            culprit(&[(neighbour(2), 10), (neighbour(3), 30), (neighbour(2), 25)]),
            "n2"
        );
    }

    #[test]
    fn who_mostly_stood_in_its_own_way_has_no_culprit() {
        assert_eq!(culprit(&[(neighbour(1), 60), (neighbour(2), 40)]), "");
        assert_eq!(culprit(&[(neighbour(1), 40), (neighbour(2), 60)]), "n2");
    }

    #[test]
    fn nobody_is_blamed_for_what_is_not_known() {
        assert_eq!(culprit(&[]), "");
        assert_eq!(culprit(&[(Particulars::None, 60), (neighbour(2), 40)]), "");
    }
}
