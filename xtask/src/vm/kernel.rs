//! The kernels: Debian's for cloud machines, of several suites, from the mirror that apt is
//! configured for. apt itself checks signatures and sums; what is unpacked is kept in the
//! user's cache and is not asked for again.

use std::{
    collections::BTreeSet,
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use harness::peers;

/// Kernel series and the Debian suites that have had them, the likeliest first.
const SERIES: &[(&str, &[&str])] = &[
    ("5.10", &["bullseye"]),
    ("6.1", &["bookworm"]),
    ("6.12", &["trixie"]),
    ("6.18", &["trixie-backports"]),
    ("7.2", &["forky", "sid", "trixie-backports"]),
];

/// A kernel that is unpacked in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `6.1`
    pub series: &'static str,
    /// Its image.
    pub image: PathBuf,
    /// Directory of its modules; the name is the kernel's release.
    pub modules: PathBuf,
}

impl Kernel {
    /// `6.1.0-50-cloud-amd64`
    pub fn release(&self) -> &str {
        let name = self.modules.file_name().unwrap_or_default();
        name.to_str().unwrap_or_default()
    }
}

/// The series that there are.
pub fn series() -> impl Iterator<Item = &'static str> {
    SERIES.iter().map(|(series, _)| *series)
}

/// The kernels of these series, oldest first; those that are not in the cache are fetched.
///
/// # Errors
/// With a remedy, when one cannot be had.
pub fn get(wanted: &[&str]) -> anyhow::Result<Vec<Kernel>> {
    fs::create_dir_all(peers::cache()?.join("kernels"))?;
    let mut archive = None;
    let mut kernels = Vec::new();
    for (series, suites) in SERIES.iter().filter(|(s, _)| wanted.contains(s)) {
        let dir = peers::cached(&format!("kernels/{series}"), "a guest boots it", |fresh| {
            if archive.is_none() {
                archive = Some(Archive::open()?);
            }
            let archive = archive.as_ref().context("just opened")?;
            archive.unpack(series, suites, fresh)
        })
        .with_context(|| {
            format!(
                "no kernel {series}: its packages come from the Debian mirror that apt uses; \
                 where that has none, copy ~/.cache/isostack/kernels from a machine that has \
                 them, or leave it out with --kernel"
            )
        })?;
        kernels.push(find(series, &dir)?);
    }
    Ok(kernels)
}

/// Image and modules in an unpacked package: older ones have `/boot` and `/lib`, newer ones
/// everything below `/usr/lib/modules/RELEASE`.
fn find(series: &'static str, dir: &Path) -> anyhow::Result<Kernel> {
    let modules = ["usr/lib/modules", "lib/modules"]
        .into_iter()
        .filter_map(|place| fs::read_dir(dir.join(place)).ok())
        .flatten()
        .next()
        .with_context(|| format!("{} has no modules: remove it", dir.display()))??
        .path();
    let name = modules.file_name().unwrap_or_default().display();
    let image = [
        modules.join("vmlinuz"),
        dir.join(format!("boot/vmlinuz-{name}")),
    ]
    .into_iter()
    .find(|image| image.exists())
    .with_context(|| format!("{} has no kernel: remove it", dir.display()))?;
    Ok(Kernel {
        series,
        image,
        modules,
    })
}

/// Debian's architecture.
fn architecture() -> anyhow::Result<&'static str> {
    match ARCH {
        "x86_64" => Ok("amd64"),
        other => bail!("guests of {other} are not set up yet: run this on x86_64"),
    }
}

/// apt with package lists of its own, gone when dropped; the machine's stay as they are.
struct Archive {
    dir: tempfile::TempDir,
}

impl Archive {
    /// Fetches the lists of all suites from the first mirror that has them.
    fn open() -> anyhow::Result<Self> {
        ensure!(
            peers::has("apt-get"),
            "this is no Debian or Ubuntu: there is no apt to fetch kernels with"
        );
        let output = Command::new("apt-get")
            .args(["indextargets", "--format", "$(SITE)"])
            .output()
            .context("apt-get")?;
        let sites = String::from_utf8(output.stdout)?;
        let sites: BTreeSet<&str> = sites.lines().collect();
        let mut failed = String::new();
        for site in sites {
            match Self::of(site) {
                Ok(archive) => return Ok(archive),
                Err(error) => failed.push_str(&format!("\n{site}: {error:#}")),
            }
        }
        bail!("no mirror that apt is configured for has the kernels:{failed}")
    }

    fn of(site: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.path().join(sub))?;
        }
        // The suites of Debian are signed by Debian, also where the machine is another one.
        let keyring = ["gpg", "pgp"]
            .map(|kind| format!("/usr/share/keyrings/debian-archive-keyring.{kind}"))
            .into_iter()
            .find(|path| Path::new(path).exists());
        let signed = keyring.map_or_else(String::new, |path| format!(" signed-by={path}"));
        let suites: BTreeSet<_> = SERIES.iter().flat_map(|(_, suites)| *suites).collect();
        let architecture = architecture()?;
        let sources: String = suites
            .into_iter()
            .map(|suite| format!("deb [arch={architecture}{signed}] {site} {suite} main\n"))
            .collect();
        fs::write(dir.path().join("sources.list"), sources)?;
        let archive = Self { dir };
        // Without the option a suite that could not be fetched would only be a warning.
        peers::run(archive.apt("apt-get").args([
            "-o",
            "APT::Update::Error-Mode=any",
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "update",
        ]))?;
        Ok(archive)
    }

    /// A command of apt that sees this archive only.
    fn apt(&self, program: &str) -> Command {
        let dir = self.dir.path().display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::State={dir}/state"),
            format!("Dir::Cache={dir}/cache"),
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::State::status=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // Root fetches into a directory that only root may see.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// Fetches and unpacks the newest kernel of a series into a new directory.
    fn unpack(&self, series: &str, suites: &[&str], into: &Path) -> anyhow::Result<()> {
        let output = self
            .apt("apt-cache")
            .args(["pkgnames", "linux-"])
            .output()
            .context("apt-cache")?;
        let names = String::from_utf8(output.stdout)?;
        let packages = packages(&names, series, architecture()?);
        ensure!(
            !packages.is_empty(),
            "{} has no such kernel any more",
            suites.join(", ")
        );
        let downloads = self.dir.path().join(series);
        fs::create_dir_all(&downloads)?;
        let mut download = self.apt("apt-get");
        download.current_dir(&downloads).arg("download");
        peers::run(download.args(&packages))?;
        fs::create_dir_all(into)?;
        for package in fs::read_dir(&downloads)? {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(package?.path()).arg(into);
            peers::run(&mut unpack)?;
        }
        Ok(())
    }
}

/// Names of the packages that make up the newest cloud kernel of `series`. Until 7.1 one has
/// all of it, later image, modules and what describes them are apart.
fn packages<'n>(names: &'n str, series: &str, architecture: &str) -> Vec<&'n str> {
    let flavour = format!("-cloud-{architecture}");
    let parts = |name: &'n str| -> Option<(&'n str, &'n str)> {
        let (kind, version) = name.strip_prefix("linux-")?.split_once('-')?;
        let wanted = ["image", "binary", "modules", "base"].contains(&kind)
            && version.starts_with(&format!("{series}."));
        Some((kind, version.strip_suffix(&flavour)?)).filter(|_| wanted)
    };
    let newest = names
        .lines()
        .filter_map(parts)
        .map(|(_, version)| version)
        .max_by_key(|version| numbers(version));
    names
        .lines()
        .filter(|name| parts(name).is_some_and(|(_, version)| Some(version) == newest))
        .collect()
}

/// `6.12.107+deb13` as `[6, 12, 107, 13]`.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_a_series_is_taken_whole() {
        let names = "linux-image-6.1.0-9-cloud-amd64\n\
                     linux-image-6.1.0-50-cloud-amd64\n\
                     linux-image-6.1.0-50-cloud-amd64-dbg\n\
                     linux-image-6.1.0-50-cloud-amd64-unsigned\n\
                     linux-image-6.1.0-50-amd64\n\
                     linux-headers-6.1.0-51-cloud-amd64\n\
                     linux-image-6.12.107+deb13-cloud-amd64\n\
                     linux-base-7.2.13+deb14-cloud-amd64\n\
                     linux-modules-7.2.13+deb14-cloud-amd64\n\
                     linux-binary-7.2.13+deb14-cloud-amd64\n\
                     linux-binary-7.2.12+deb14-cloud-amd64";
        assert_eq!(
            packages(names, "6.1", "amd64"),
            ["linux-image-6.1.0-50-cloud-amd64"]
        );
        assert_eq!(
            packages(names, "7.2", "amd64"),
            [
                "linux-base-7.2.13+deb14-cloud-amd64",
                "linux-modules-7.2.13+deb14-cloud-amd64",
                "linux-binary-7.2.13+deb14-cloud-amd64"
            ]
        );
        assert!(packages(names, "6.6", "amd64").is_empty());
    }
}
