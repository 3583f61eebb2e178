//! Real programs of others that the tests run against, fetched or built once per version
//! into the user's cache, outside the build tree.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use crate::artifact;

/// The folder everything of this kind lives in.
///
/// # Errors
/// When neither `XDG_CACHE_HOME` nor `HOME` is set, or it cannot be made.
pub fn cache() -> anyhow::Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let dir = base.join("isostack");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// The entry `name` of the cache; made by `make` in a temporary place when it is missing.
/// Two processes never make the same entry at once, and half of one is never seen.
///
/// # Errors
/// When `make` fails.
pub fn cached(
    name: &str,
    why: &str,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    let entry = cache.join(name);
    if entry.exists() {
        return Ok(entry);
    }
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock().context("cannot lock the cache")?;
    if entry.exists() {
        return Ok(entry);
    }
    eprintln!("  making {name} ({why})");
    let fresh = cache.join(format!("{name}.new"));
    if fresh.is_dir() {
        fs::remove_dir_all(&fresh)?;
    }
    make(&fresh).with_context(|| format!("cannot make {name}, which is needed: {why}"))?;
    fs::rename(&fresh, &entry)?;
    Ok(entry)
}

/// Runs a command to its end; its output appears only when it fails.
///
/// # Errors
/// When it cannot be started or fails: its last lines are in the message.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}; is it installed?"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        bail!(
            "{program} failed:\n{}",
            lines[lines.len().saturating_sub(25)..].join("\n")
        );
    }
    Ok(())
}

/// Jaeger 2, all in one.
///
/// # Errors
/// When it does not build.
pub fn jaeger() -> anyhow::Result<PathBuf> {
    go_program(
        "jaeger",
        "github.com/jaegertracing/jaeger",
        "github.com/jaegertracing/jaeger/cmd/jaeger",
        "the tests read spans back through a real Jaeger; three minutes, once",
    )
}

/// An OpenTelemetry Collector with what the benchmark needs.
///
/// # Errors
/// When it does not build.
pub fn collector() -> anyhow::Result<PathBuf> {
    go_program(
        "collector",
        "go.opentelemetry.io/collector/otelcol",
        ".",
        "the benchmark compares with a real Collector; two minutes, once",
    )
}

/// Builds `package` in the module `tests/peers/NAME`, kept under the version that its
/// go.mod gives `dependency`.
fn go_program(name: &str, dependency: &str, package: &str, why: &str) -> anyhow::Result<PathBuf> {
    let dir = artifact::root().join("tests/peers").join(name);
    let go_mod = fs::read_to_string(dir.join("go.mod"))?;
    let version = go_mod
        .lines()
        .find_map(|line| {
            line.trim()
                .trim_start_matches("require ")
                .strip_prefix(dependency)
        })
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("{name}/go.mod names no version of {dependency}"))?;
    let mut kept_as = format!("{name}-{version}");
    let own_source = dir.join("main.go");
    if own_source.exists() {
        kept_as = keyed(&kept_as, &[own_source])?;
    }
    cached(&kept_as, why, |fresh| {
        let mut go = Command::new("go");
        go.current_dir(&dir)
            .args(["build", "-mod=readonly", "-o"])
            .arg(fresh)
            .arg(package);
        // The sums are beside the module; the public database lacks some of them.
        go.env("GONOSUMDB", "*").env("GOFLAGS", "");
        run(&mut go)
    })
}

/// A file name for something made from `inputs`: another name when one of them changes.
fn keyed(name: &str, inputs: &[PathBuf]) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    for input in inputs {
        fs::read(input)
            .with_context(|| input.display().to_string())?
            .hash(&mut hasher);
    }
    Ok(format!("{name}-{:016x}", hasher.finish()))
}

fn service(language: &str) -> PathBuf {
    artifact::root().join("tests/services").join(language)
}

/// The Python interpreter of an environment with the upstream SDK.
///
/// # Errors
/// When it cannot be made.
pub fn python() -> anyhow::Result<PathBuf> {
    python_env("sdk", &service("python").join("requirements.txt"))
}

/// The Python interpreter of an environment with what `requirements` lists.
///
/// # Errors
/// When it cannot be made.
pub fn python_env(name: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
    let key = keyed(&format!("python-{name}"), &[requirements.to_owned()])?;
    let dir = cached(&key, "Python packages of the tests", |fresh| {
        run(Command::new("python3").args(["-m", "venv"]).arg(fresh))?;
        run(Command::new(fresh.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(requirements))
    })?;
    Ok(dir.join("bin/python"))
}

/// A folder with the Node services and their `node_modules`.
///
/// # Errors
/// When npm fails.
pub fn node() -> anyhow::Result<PathBuf> {
    let dir = service("node");
    let files =
        ["package.json", "package-lock.json", "app.mjs", "orders.mjs"].map(|name| dir.join(name));
    cached(
        &keyed("node", &files)?,
        "the Node service and its packages",
        |fresh| {
            copy_into(fresh, &files)?;
            run(Command::new("npm")
                .current_dir(fresh)
                .args(["ci", "--no-audit", "--no-fund"]))
        },
    )
}

/// A folder with the compiled Java services and their jars in `lib`.
///
/// # Errors
/// When Maven or the compiler fails.
pub fn java() -> anyhow::Result<PathBuf> {
    let dir = service("java");
    let classes = ["App.java", "Front.java", "Threads.java"];
    let files = ["pom.xml"].into_iter().chain(classes);
    let files: Vec<_> = files.map(|name| dir.join(name)).collect();
    cached(
        &keyed("java", &files)?,
        "the Java service and its jars",
        |fresh| {
            copy_into(fresh, &files)?;
            run(Command::new("mvn").current_dir(fresh).args([
                "--batch-mode",
                "--quiet",
                "dependency:copy-dependencies",
                "-DoutputDirectory=lib",
            ]))?;
            let mut javac = Command::new("javac");
            run(javac
                .args(["-cp", "lib/*"])
                .args(classes)
                .current_dir(fresh))
        },
    )
}

fn copy_into(dir: &Path, files: &[PathBuf]) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    for file in files {
        let name = file.file_name().unwrap_or(OsStr::new("file"));
        fs::copy(file, dir.join(name)).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Whether a program is on the path.
#[must_use]
pub fn has(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Fails with a sentence when a program is missing.
///
/// # Errors
/// When it is not on the path.
pub fn need(program: &str) -> anyhow::Result<()> {
    ensure!(
        has(program),
        "{program} is not installed; cargo xtask setup installs it"
    );
    Ok(())
}
