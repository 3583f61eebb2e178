//! What a cgroup path says about the workload: the forms that container engines,
//! Kubernetes and systemd give to it. Pure.

pub mod belief;
mod level;
mod namesakes;
pub mod place;
#[cfg(test)]
mod tests;

pub use self::{
    belief::{Belief, Circumstances},
    level::{Level, levels},
    namesakes::Namesakes,
};

/// What kind of thing a cgroup path names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathKind {
    /// The root, or nothing known.
    #[default]
    Root,
    /// A container.
    Container,
    /// A pod's own group, or a helper in it, outside its containers.
    Pod,
    /// A systemd unit.
    Unit,
    /// A group that somebody else made.
    Plain,
}

/// The names found in a cgroup path; empty where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathNames {
    /// Kind of the innermost thing named.
    pub kind: PathKind,
    /// Container id.
    pub container_id: String,
    /// Container name, where the path has one instead of an id (LXC, nspawn).
    pub container: String,
    /// Kubernetes pod uid, with dashes.
    pub pod_uid: String,
    /// Container engine as the path tells it; empty when several make the same form.
    pub engine: &'static str,
    /// Innermost systemd unit (inside the container, if there is one), behind the outermost one if
    /// it is in another: `user@1000.service/web.service` is not `web.service`. Of a plain group
    /// its last component.
    pub unit: String,
}

/// Component prefixes that name engine and container, each ended by the id and perhaps
/// `.scope`.
const PREFIXES: &[(&str, &str)] = &[
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("docker-", "docker"),
    ("libpod-", "podman"),
];

/// Plain components that say which engine made the bare ids below them.
const PARENTS: &[(&str, &str)] = &[
    ("docker", "docker"),
    ("actions_job", "docker"),
    ("ecs", "docker"),
    ("k8s.io", "containerd"),
    ("libpod_parent", "podman"),
];

/// Bytes kept of a path that stands for a unit.
const MAX_UNIT: usize = 253;

/// Suffixes of systemd's unit types that have a cgroup; slices are looked at last.
const UNIT_SUFFIXES: &[&str] = &[".service", ".scope", ".socket", ".mount", ".swap"];

impl PathNames {
    /// Reads a path below the hierarchy's mount. The innermost container, pod and unit win,
    /// so that Kubernetes in a container (kind) and containers in containers come out right.
    #[must_use]
    pub fn parse(path: &str) -> Self {
        let mut names = Self::default();
        let mut parent_engine = "";
        let mut slice = "";
        let mut last = "";
        for component in path.split('/').filter(|c| !matches!(*c, "" | "." | "..")) {
            last = component;
            if let Some((_, engine)) = PARENTS.iter().find(|(name, _)| *name == component) {
                parent_engine = engine;
            }
            if component.starts_with("kubepods") || component == "kubelet" {
                parent_engine = "";
            }
            names.take(component, parent_engine);
            if component.ends_with(".slice") {
                slice = component;
            }
        }
        if names.kind == PathKind::Root && !last.is_empty() {
            (names.kind, names.unit) = if slice.is_empty() {
                (PathKind::Plain, last.to_owned())
            } else {
                (PathKind::Unit, slice.to_owned())
            };
        }
        if names.kind == PathKind::Plain && matches!(last, "kubepods" | "burstable" | "besteffort")
        {
            names.unit = "kubepods".to_owned();
        }
        names
    }

    /// The same where `maker` owns the directory that the group was made in ([`made_in`]). Who is
    /// not root may call a group there like any other unit or group, so it is called by its path.
    #[must_use]
    pub fn of_maker(mut self, path: &str, maker: u32) -> Self {
        if maker != 0 && matches!(self.kind, PathKind::Unit | PathKind::Plain) {
            // Its beginning says whose it is.
            let path = path.trim_start_matches('/');
            path[..path.floor_char_boundary(MAX_UNIT)].clone_into(&mut self.unit);
        }
        self
    }

    /// The same where the outermost container was made in the group `outer`, whose directory is
    /// `maker`'s. A container without an id has a name only, and so has an engine's container: a
    /// user's is called after its user as well.
    #[must_use]
    pub fn in_group_of(mut self, outer: &str, maker: u32) -> Self {
        if maker != 0 && !self.container.is_empty() {
            let owner = match Self::parse(outer).unit {
                unit if unit.is_empty() => format!("uid {maker}"),
                unit => unit,
            };
            self.container = format!("{owner}/{}", self.container);
        }
        self
    }

    fn take(&mut self, component: &str, parent_engine: &'static str) {
        if let Some(uid) = pod_uid(component) {
            *self = Self {
                kind: PathKind::Pod,
                pod_uid: uid,
                ..Self::default()
            };
            // `kubepods-burstable-podX.slice:cri-containerd:ID` goes on below.
            if !component.contains(':') {
                return;
            }
        }
        if let Some((engine, id)) = container(component, parent_engine) {
            self.kind = PathKind::Container;
            self.engine = engine;
            id.clone_into(&mut self.container_id);
            self.container.clear();
            self.unit.clear();
        } else if let Some((engine, name)) = machine(component) {
            self.kind = PathKind::Container;
            self.engine = engine;
            self.container = name;
            self.container_id.clear();
            self.unit.clear();
        } else if UNIT_SUFFIXES.iter().any(|s| component.ends_with(s)) {
            // Units that hold an engine's own helpers are not the container. systemd itself puts
            // units into slices only: what is inside a unit was made by that unit's processes.
            self.unit = match self.unit.split('/').next() {
                None | Some("") => component.to_owned(),
                Some(outer) => format!("{outer}/{component}"),
            };
            if matches!(self.kind, PathKind::Root | PathKind::Plain) {
                self.kind = PathKind::Unit;
            }
        }
    }
}

/// The group in which the outermost unit of a path was made, else its last slice, else the whole.
#[must_use]
pub fn made_in(path: &str) -> &str {
    let (mut at, mut begin) = (None, 0);
    for component in path.split('/') {
        if UNIT_SUFFIXES
            .iter()
            .any(|suffix| component.ends_with(suffix))
        {
            at = Some(begin);
            break;
        }
        if component.ends_with(".slice") {
            at = Some(begin);
        }
        begin += component.len() + 1;
    }
    let at = at.or_else(|| Some(path.rfind('/')? + 1));
    path[..at.unwrap_or(0)].trim_end_matches('/')
}

/// `pod<uid>` of the cgroupfs driver, `kubepods[-qos]-pod<uid_with_underscores>.slice` of
/// the systemd driver, with whatever stands before `kubepods` in nested set-ups.
fn pod_uid(component: &str) -> Option<String> {
    let component = component.split(':').next()?;
    let uid = match component.strip_suffix(".slice") {
        Some(slice) => {
            slice.find("kubepods")?;
            slice.rsplit_once("-pod")?.1
        }
        None => component.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // 36 characters, or 32 without dashes for static pods (a hash of the manifest).
    let digits = uid.chars().filter(|c| *c != '-').count();
    let dashes = uid.len() - digits;
    let hexadecimal = uid.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    (hexadecimal && digits == 32 && (dashes == 0 || dashes == 4)).then_some(uid)
}

/// Engine and id of a component that names a container.
fn container<'a>(component: &'a str, parent: &'static str) -> Option<(&'static str, &'a str)> {
    // `system.slice:docker:ID`: a systemd-style path on a cgroupfs driver.
    if let Some((rest, id)) = component.rsplit_once(':') {
        let prefix = rest.rsplit(':').next()?;
        let engine = PREFIXES
            .iter()
            .find(|(name, _)| name.strip_suffix('-') == Some(prefix))
            .map(|(_, engine)| *engine)?;
        return is_id(id).then_some((engine, id));
    }
    let bare = component.strip_suffix(".scope").unwrap_or(component);
    for (prefix, engine) in PREFIXES {
        if let Some(id) = bare.strip_prefix(prefix)
            && is_id(id)
        {
            return Some((engine, id));
        }
    }
    is_id(component).then_some((parent, component))
}

/// Engine and name of machines and system containers.
fn machine(component: &str) -> Option<(&'static str, String)> {
    let lxc = component.strip_prefix("lxc.payload.");
    if let Some(name) = lxc.filter(|name| !name.is_empty()) {
        return Some(("lxc", name.to_owned()));
    }
    if let Some(unit) = component.strip_prefix("systemd-nspawn@") {
        return Some(("nspawn", unescape(unit.strip_suffix(".service")?)));
    }
    let name = unescape(component.strip_prefix("machine-")?.strip_suffix(".scope")?);
    // libvirt's machines: the VM is named by the unit, its processes are VMMs.
    let virtual_machine = ["qemu-", "lxc-", "xen-", "ch-"]
        .iter()
        .any(|p| name.starts_with(p));
    (!virtual_machine).then_some(("nspawn", name))
}

/// 64 lower-case hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// systemd's `\xNN` escapes, lossily decoded.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escape = rest
            .get(..4)
            .filter(|e| e.starts_with(b"\\x"))
            .and_then(|e| std::str::from_utf8(&e[2..]).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = escape {
            bytes.push(byte);
            rest = &rest[4..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
