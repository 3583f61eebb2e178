//! `docs/kernels.md`: what each sensor can do on each kernel, as `doctor` said in the guests.

use std::fmt::Write as _;

use super::report::Sensor;

/// What `doctor` said on one kernel.
pub struct Column {
    /// `6.1`
    pub kernel: String,
    /// One per sensor, in `doctor`'s order.
    pub sensors: Vec<Sensor>,
}

const HEAD: &str = "\
# Kernels

What each sensor can do on which kernel. Written by `cargo xtask vm --write-docs` from what
`isostack-agent doctor` says in guests that run Debian's kernels for cloud machines, which have
every type of program, type information and no lockdown; `cargo xtask vm` fails when it no
longer holds. Without flags it also runs the
sensors' ground-truth tests there.
";

const HOST_HEAD: &str = "
## A host with less

The machine that the guests ran on. Not compared by the tests: yours is another one, ask its
`isostack-agent doctor`.
";

/// The part that depends on the guests only.
pub fn guests(columns: &[Column]) -> String {
    let mut text = HEAD.to_owned();
    table(&mut text, columns);
    text
}

/// The part about the machine itself.
pub fn host(column: Column) -> String {
    let mut text = HOST_HEAD.to_owned();
    table(&mut text, &[column]);
    text
}

/// The states alone, one line per sensor.
pub fn states(columns: &[Column]) -> String {
    let mut text = String::new();
    let Some(first) = columns.first() else {
        return text;
    };
    let kernels: Vec<&str> = columns.iter().map(|c| c.kernel.as_str()).collect();
    text.push_str(&format!("| sensor | {} |\n", kernels.join(" | ")));
    text.push_str(&format!("| --- |{}\n", " --- |".repeat(columns.len())));
    for sensor in &first.sensors {
        let _ = write!(text, "| `{}` |", sensor.name);
        for column in columns {
            let state = of(column, &sensor.name).map_or("not there", |s| s.state.as_str());
            let _ = write!(text, " {state} |");
        }
        text.push('\n');
    }
    text
}

fn table(text: &mut String, columns: &[Column]) {
    let Some(first) = columns.first() else {
        return;
    };
    let _ = writeln!(text, "\n{}", states(columns));
    for sensor in &first.sensors {
        // Kernels that say the same are named together.
        let mut said: Vec<(String, Vec<&str>)> = Vec::new();
        for column in columns {
            let Some(sensor) = of(column, &sensor.name) else {
                continue;
            };
            let words = words(sensor);
            match said.iter_mut().find(|(known, _)| *known == words) {
                Some((_, kernels)) => kernels.push(&column.kernel),
                None => said.push((words, vec![&column.kernel])),
            }
        }
        for (words, kernels) in said {
            let _ = writeln!(
                text,
                "- `{}` on {}: {words}",
                sensor.name,
                kernels.join(", ")
            );
        }
    }
}

fn of<'c>(column: &'c Column, name: &str) -> Option<&'c Sensor> {
    column.sensors.iter().find(|sensor| sensor.name == name)
}

fn words(sensor: &Sensor) -> String {
    let mut words = sensor.state.clone();
    for (before, part) in [
        (" by ", &sensor.hook),
        ("; ", &sensor.reason),
        ("; loses: ", &sensor.loses),
    ] {
        if !part.is_empty() {
            words.push_str(before);
            words.push_str(part);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kernel: &str, state: &str, hook: &str, reason: &str) -> Column {
        Column {
            kernel: kernel.to_owned(),
            sensors: vec![Sensor {
                name: "cpu".to_owned(),
                state: state.to_owned(),
                hook: hook.to_owned(),
                reason: reason.to_owned(),
                loses: String::new(),
            }],
        }
    }

    #[test]
    fn kernels_that_say_the_same_are_named_together() {
        let text = guests(&[
            column("5.10", "off", "", "this kernel has no such member"),
            column("6.1", "on", "tp_btf/sched_switch", ""),
            column("6.12", "on", "tp_btf/sched_switch", ""),
        ]);
        let rest = text.strip_prefix(HEAD).unwrap_or_default();
        assert_eq!(
            rest,
            "\n| sensor | 5.10 | 6.1 | 6.12 |\n| --- | --- | --- | --- |\n\
             | `cpu` | off | on | on |\n\n\
             - `cpu` on 5.10: off; this kernel has no such member\n\
             - `cpu` on 6.1, 6.12: on by tp_btf/sched_switch\n"
        );
    }
}
