//! Where the groups in a path come from: what decides whether their names are believed.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Identifier, cache::Generations, known::CGROUP_LIFETIME};
use crate::{
    host::proc::{ProcDir, own_pid},
    workload::path::{
        Belief, Circumstances, Level, Namesakes, PathNames,
        belief::{doubtful_ids, outside},
        levels, made_in,
        place::kubelet_root,
    },
};

/// Paths with doubtful ids that are remembered.
const MAX_DOUBTFUL: usize = 4_096;
/// What the host's groups name is made out anew after this long, as the groups themselves are.
const NAMESAKES_LIFETIME: Duration = Duration::from_secs(1);

/// Where the groups of a path come from.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// See `ProcessFacts::cgroup_maker`.
    pub maker: u32,
    /// See `ProcessFacts::unit_maker`.
    pub unit_maker: u32,
    /// See `ProcessFacts::foreign_ids`.
    pub foreign_ids: Vec<String>,
}

/// What was found of doubtful ids.
#[derive(Debug)]
pub(super) struct Doubtful {
    /// Which of them are another's, by path.
    foreign: Mutex<Generations<String, (Vec<String>, Instant)>>,
    /// What the host's groups name; nothing before the first doubt.
    namesakes: Mutex<Option<(Arc<Namesakes>, Instant)>>,
    kubelet_roots: OnceLock<Vec<String>>,
}

impl Default for Doubtful {
    fn default() -> Self {
        Self {
            foreign: Mutex::new(Generations::new(MAX_DOUBTFUL)),
            namesakes: Mutex::default(),
            kubelet_roots: OnceLock::new(),
        }
    }
}

impl Identifier {
    /// The containers' names in a cgroup path that can be believed without a look at its processes.
    #[must_use]
    pub fn settled_names(&self, path: &str) -> PathNames {
        let levels = levels(path);
        if levels.is_empty() {
            return PathNames::parse(path);
        }
        let origin = self.origin(path, &levels);
        let known = Circumstances {
            kubelet_roots: self.kubelet_roots(),
            maker: origin.maker,
            unit_maker: origin.unit_maker,
            foreign_ids: &origin.foreign_ids,
        };
        Belief::of(path, &known, |_, _| false).names(path)
    }

    /// Groups besides `/` in which kubelets of this host keep their pods: where the agent is in
    /// a pod itself, its own kubelet's.
    pub(super) fn kubelet_roots(&self) -> &[String] {
        self.doubtful.kubelet_roots.get_or_init(|| {
            let own = own_pid(&self.roots)
                .and_then(|pid| ProcDir::new(&self.roots, pid).cgroups().ok())
                .map(|lines| self.cgroups.path_of(&lines));
            let root = own.and_then(|path| kubelet_root(&path));
            root.into_iter().filter(|root| !root.is_empty()).collect()
        })
    }

    /// Where the groups of this path come from.
    pub(super) fn origin(&self, path: &str, levels: &[Level]) -> Origin {
        let owner = |group: &str| self.cgroups.owner_of(group).unwrap_or(0);
        let unit_maker = owner(made_in(outside(path, levels)));
        let Some(outermost) = levels.first() else {
            return Origin {
                unit_maker,
                ..Origin::default()
            };
        };
        let maker = owner(&path[..outermost.begin]);
        let doubtful = doubtful_ids(path, levels, maker, self.kubelet_roots());
        if doubtful.is_empty() {
            return Origin {
                maker,
                unit_maker,
                ..Origin::default()
            };
        }
        let known = self.doubtful.foreign.lock().get(&path.to_owned());
        let foreign_ids = match known.filter(|(_, at)| at.elapsed() < CGROUP_LIFETIME) {
            Some((foreign, _)) => foreign,
            None => {
                let foreign = self.foreign_of(&doubtful);
                let entry = (foreign.clone(), Instant::now());
                self.doubtful.foreign.lock().insert(path.to_owned(), entry);
                foreign
            }
        };
        Origin {
            maker,
            unit_maker,
            foreign_ids,
        }
    }

    /// Those ids that are another's: by the engine's or Kubernetes' word, or because another
    /// group has them too.
    fn foreign_of(&self, doubtful: &[(&str, &str)]) -> Vec<String> {
        let is_foreign = |(id, own): &&(&str, &str)| {
            self.naming
                .word_on(id, own)
                .unwrap_or_else(|| self.namesakes().has_another(id, own))
        };
        let foreign = doubtful.iter().filter(is_foreign);
        foreign.map(|(id, _)| (*id).to_owned()).collect()
    }

    /// Made out once for the many doubts that come together, as with an agent that starts.
    fn namesakes(&self) -> Arc<Namesakes> {
        let mut known = self.doubtful.namesakes.lock();
        if let Some((namesakes, at)) = &*known
            && at.elapsed() < NAMESAKES_LIFETIME
        {
            return namesakes.clone();
        }
        let all = self.cgroups.all();
        let namesakes = Arc::new(Namesakes::of(all.iter().map(|(_, path)| &**path)));
        *known = Some((namesakes.clone(), Instant::now()));
        namesakes
    }
}
