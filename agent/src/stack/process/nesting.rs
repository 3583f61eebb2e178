//! Containers in containers: where in a cgroup path each begins and ends, and how much of it
//! is believed (`workload::path::belief`). The *stack* shows all of them, as each is a layer; the
//! *workload* is the innermost that is believed.

use super::{Ancestor, ProcessFacts};
use crate::{
    host::platform::HostFacts,
    workload::path::{Belief, Level, PathNames, place::is_below},
};

/// Where a process sits, and how much of what its path says is believed.
#[derive(Debug)]
pub(super) struct Place<'a> {
    facts: &'a ProcessFacts,
    belief: Belief,
}

impl<'a> Place<'a> {
    pub fn find(facts: &'a ProcessFacts, host: &HostFacts) -> Self {
        let vouched = |levels: &[Level], index| {
            makers(facts, levels, index).any(|maker| maker.rules_the_host(host))
        };
        let belief = Belief::of(&facts.cgroup_path, &facts.circumstances(), vouched);
        Self { facts, belief }
    }

    /// Outermost first.
    pub fn levels(&self) -> &[Level] {
        &self.belief.levels
    }

    /// How many of them are believed.
    pub const fn believed(&self) -> usize {
        self.belief.believed
    }

    /// Why not all are.
    pub const fn doubt(&self) -> Option<&'static str> {
        self.belief.doubt
    }

    /// Ancestors between this level and the one around it: who made it is among them.
    pub fn makers(&self, index: usize) -> impl Iterator<Item = &'a Ancestor> {
        makers(self.facts, &self.belief.levels, index)
    }

    /// What the believed part of the path says.
    pub fn names(&self) -> PathNames {
        self.belief.names(&self.facts.cgroup_path)
    }
}

fn makers<'a>(
    facts: &'a ProcessFacts,
    levels: &[Level],
    index: usize,
) -> impl Iterator<Item = &'a Ancestor> + use<'a> {
    let of = |level: &Level| level.path(&facts.cgroup_path).to_owned();
    let inner = of(&levels[index]);
    let outer = index.checked_sub(1).map(|outer| of(&levels[outer]));
    facts.ancestors.iter().filter(move |ancestor| {
        // Where the ancestor's group is not known, it is taken to be outside of all.
        let path = &*ancestor.cgroup_path;
        if path.is_empty() {
            return outer.is_none();
        }
        !is_below(path, &inner) && outer.as_ref().is_none_or(|outer| is_below(path, outer))
    })
}
