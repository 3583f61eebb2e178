//! Where functions of the running kernel are: `/proc/kallsyms`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
};

use super::roots::Roots;

/// A kernel with many modules has some ten megabytes.
const MAX_BYTES: u64 = 64 << 20;
/// Of so much at the start some address is not 0, if any is.
const HEAD_BYTES: u64 = 256 << 10;

/// A function's place: its first address, and one past its last (the next symbol's first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

/// Why the addresses cannot be had; `None` where they can.
#[must_use]
pub fn hidden(roots: &Roots) -> Option<String> {
    let path = roots.procfs.join("kallsyms");
    let shows = |line: &str| symbol(line).is_some_and(|(address, ..)| address != 0);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) => return Some(format!("cannot read {}: {error}", path.display())),
    };
    let is_shown = lines(file, HEAD_BYTES).any(|line| shows(&line));
    (!is_shown).then(|| {
        format!(
            "{} hides the kernel's addresses (CAP_SYSLOG, kernel.kptr_restrict)",
            path.display()
        )
    })
}

/// Where each of these functions is, each by all names that it has had; `None` for one that is not
/// there or cannot be seen.
#[must_use]
pub fn find(roots: &Roots, wanted: &[&[&str]]) -> Vec<Option<Function>> {
    let mut found: Vec<Option<Function>> = vec![None; wanted.len()];
    let by_name = |name: &str| wanted.iter().position(|names| names.contains(&name));
    let Ok(file) = File::open(roots.procfs.join("kallsyms")) else {
        return found;
    };
    for line in lines(file, MAX_BYTES) {
        // Modules come last.
        if line.contains('\t') || found.iter().all(|known| known.is_some_and(|f| f.end != 0)) {
            break;
        }
        let Some((address, kind, name)) = symbol(&line).filter(|(address, ..)| *address != 0)
        else {
            continue;
        };
        // The kernel's own symbols come in order of address: an end is the next address.
        for function in found.iter_mut().flatten() {
            if function.end == 0 && address > function.start {
                function.end = address;
            }
        }
        if let ('t' | 'T', Some(at)) = (kind, by_name(name)) {
            found[at] = Some(Function {
                start: address,
                end: 0,
            });
        }
    }
    let is_whole = |function: &Function| function.end != 0;
    found.into_iter().map(|f| f.filter(is_whole)).collect()
}

fn lines(file: File, bytes: u64) -> impl Iterator<Item = String> {
    let lines = BufReader::with_capacity(1 << 16, file.take(bytes)).lines();
    lines.map_while(Result::ok)
}

/// `ffffffff815ec5c0 T do_swap_page`
fn symbol(line: &str) -> Option<(u64, char, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    Some((address, words.next()?.chars().next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SYMBOLS: &str = "0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff815ec5c0 T do_swap_page
ffffffff815ec5c0 T an_alias
ffffffff815eda60 t __handle_mm_fault
ffffffff815ee9b0 T handle_mm_fault
ffffffff815ef000 d handle_mm_fault.data
ffffffffc0000000 t do_swap_page\t[module]
";

    fn with(text: &str) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kallsyms"), text).unwrap();
        let roots = Roots {
            procfs: dir.path().to_owned(),
            ..Roots::default()
        };
        (dir, roots)
    }

    #[test]
    fn a_function_ends_where_the_next_one_begins() {
        let (_dir, roots) = with(SYMBOLS);
        assert_eq!(hidden(&roots), None);
        let found = find(
            &roots,
            &[
                &["do_swap_page"],
                &["had_before", "handle_mm_fault"],
                &["not_there"],
            ],
        );
        let of = |start, end| Some(Function { start, end });
        assert_eq!(
            found,
            [
                of(0xffff_ffff_815e_c5c0, 0xffff_ffff_815e_da60),
                of(0xffff_ffff_815e_e9b0, 0xffff_ffff_815e_f000),
                None,
            ]
        );
    }

    #[test]
    fn hidden_addresses_are_no_addresses() {
        let (_dir, roots) = with("0000000000000000 T _text\n0000000000000000 T do_swap_page\n");
        assert!(hidden(&roots).unwrap().contains("CAP_SYSLOG"));
        assert_eq!(find(&roots, &[&["do_swap_page"]]), [None]);
        let (_dir, roots) = with("\u{fffd} what is this\n\nffffffff81000000\n");
        assert!(hidden(&roots).is_some());
        let none = Roots {
            procfs: "/nowhere".into(),
            ..Roots::default()
        };
        assert!(hidden(&none).unwrap().contains("/nowhere"));
    }

    #[test]
    fn this_kernel_has_page_faults() {
        let roots = Roots::default();
        if let Some(why) = hidden(&roots) {
            println!("cannot run here: {why}");
            return;
        }
        let found = find(&roots, &[&["handle_mm_fault"]])[0].unwrap();
        assert!(
            (16..1 << 20).contains(&(found.end - found.start)),
            "{found:?}"
        );
    }
}
