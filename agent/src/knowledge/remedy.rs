//! What to do about a verdict: the sentence of the data that fits, filled with the evidence.

use super::{cause, sentence::Slot};
use crate::vocabulary::{Cause, Fault};

/// The first remedy of `of` that is for `at` and of which everything is known.
#[must_use]
pub fn remedy(of: Cause, at: Fault, mut value_of: impl FnMut(Slot) -> Option<String>) -> String {
    cause(of)
        .remedies
        .iter()
        .filter(|remedy| remedy.at.is_empty() || remedy.at.contains(&at))
        .find_map(|remedy| remedy.say.fill(&mut value_of))
        .expect("the build checked that the last remedy needs nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_that_is_known_is_said() {
        let nothing = |_| None;
        let all = |slot: Slot| Some(format!("<{}>", slot.as_str()));
        assert_eq!(
            remedy(Cause::CpuThrottle, Fault::L3, all),
            "Raise <setting> above <limit> or remove it, or run fewer threads at once."
        );
        let only_who = |slot| (slot == Slot::Workload).then(|| "shop/cart".to_owned());
        assert_eq!(
            remedy(Cause::CpuThrottle, Fault::L3, only_who),
            "Raise the CPU limit of shop/cart or of the group it is in, or use fewer threads at once."
        );
        let plain = remedy(Cause::CpuThrottle, Fault::L3, nothing);
        assert!(plain.contains("of the workload"), "{plain}");
    }

    #[test]
    fn the_place_decides() {
        let of = |fault| remedy(Cause::MemoryReclaim, fault, |_| None);
        assert!(of(Fault::L3).contains("memory.high"));
        assert!(of(Fault::Host).contains("this host"));
    }
}
