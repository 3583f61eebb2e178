//! The agent's sums of two moments, and the table of their difference.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use serde::Deserialize;
use serde_json::{Value, json};
use textwrap::core::display_width;

use crate::{cli::trace::TopSort, stack::report::visible, vocabulary::Cause};

/// Sums of one moment.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    workloads: HashMap<u64, Sums>,
}

#[derive(Clone, Debug, Default)]
struct Sums {
    name: String,
    layer: String,
    services: Vec<String>,
    verdicts: u64,
    lost_ms: BTreeMap<Cause, f64>,
    happened: BTreeMap<Cause, u64>,
}

#[derive(Deserialize)]
struct Answer {
    workloads: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    workload: Place,
    layer: String,
    services: Vec<String>,
    verdicts: u64,
    lost_ms: BTreeMap<Cause, f64>,
    happened: BTreeMap<Cause, u64>,
}

#[derive(Deserialize)]
struct Place {
    cgroup_id: u64,
}

impl Look {
    /// Of `/api/v1/workloads` as it was at that moment.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(body: &[u8], at: Instant) -> Result<Self, serde_json::Error> {
        let answer: Answer = serde_json::from_slice(body)?;
        let mut workloads: HashMap<u64, Sums> = HashMap::new();
        for row in answer.workloads {
            // Processes of one cgroup have its sums in common, and verdicts of their own.
            let sums = workloads.entry(row.workload.cgroup_id).or_default();
            if sums.name.is_empty() {
                sums.name = row.name;
                sums.layer = row.layer;
                sums.lost_ms = row.lost_ms;
                sums.happened = row.happened;
            }
            sums.verdicts += row.verdicts;
            sums.services.extend(row.services);
        }
        Ok(Self { at, workloads })
    }
}

/// What each workload lost in a second.
#[derive(Debug, Default)]
pub(super) struct Rates {
    seconds: f64,
    rows: Vec<Rate>,
}

#[derive(Debug, Default)]
struct Rate {
    name: String,
    layer: String,
    services: Vec<String>,
    cgroup_id: u64,
    verdicts: u64,
    /// Milliseconds a second.
    lost: BTreeMap<Cause, f64>,
    /// Times a second.
    happened: BTreeMap<Cause, f64>,
}

/// A column: its title, its sort key, and what it adds up.
struct Column {
    title: &'static str,
    sort: Option<TopSort>,
    lost: &'static [Cause],
    happened: &'static [Cause],
}

const COLUMNS: [Column; 8] = [
    Column {
        title: "THROTTLE",
        sort: Some(TopSort::Throttle),
        lost: &[Cause::CpuThrottle],
        happened: &[],
    },
    Column {
        title: "RUNQ",
        sort: Some(TopSort::Runqueue),
        lost: &[Cause::Runqueue],
        happened: &[],
    },
    Column {
        title: "MEMORY",
        sort: Some(TopSort::Memory),
        lost: &[Cause::MemoryReclaim],
        happened: &[],
    },
    Column {
        title: "DISK",
        sort: Some(TopSort::Disk),
        lost: &[Cause::BlockThrottle, Cause::BlockQueue, Cause::BlockDevice],
        happened: &[],
    },
    Column {
        title: "LOCK",
        sort: None,
        lost: &[Cause::LockWait],
        happened: &[],
    },
    Column {
        title: "RETR",
        sort: Some(TopSort::Network),
        lost: &[],
        happened: &[Cause::TcpRetransmit],
    },
    Column {
        title: "DROP",
        sort: Some(TopSort::Network),
        lost: &[],
        happened: &[Cause::NetDrop],
    },
    Column {
        title: "DENIED",
        sort: None,
        lost: &[],
        happened: &[Cause::SeccompDenied],
    },
];

/// What counts as lost: idle threads wait for sockets and timers all the time.
const TOTAL: [Cause; 8] = [
    Cause::CpuThrottle,
    Cause::Runqueue,
    Cause::KvmExit,
    Cause::MemoryReclaim,
    Cause::BlockThrottle,
    Cause::BlockQueue,
    Cause::BlockDevice,
    Cause::TcpConnect,
];

impl Rates {
    /// What happened between two looks.
    pub fn between(before: &Look, now: &Look, sort: TopSort) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let nothing = Sums::default();
        let rows = now.workloads.iter().map(|(id, sums)| {
            let old = before.workloads.get(id).unwrap_or(&nothing);
            // A sum that fell is of an agent that was started anew.
            let rate = |new: f64, old: f64| {
                let grown = if new >= old { new - old } else { new };
                grown / seconds
            };
            let lost = sums.lost_ms.iter().map(|(cause, new)| {
                (
                    *cause,
                    rate(*new, old.lost_ms.get(cause).copied().unwrap_or_default()),
                )
            });
            let happened = sums.happened.iter().map(|(cause, new)| {
                let old = old.happened.get(cause).copied().unwrap_or_default();
                (*cause, rate(*new as f64, old as f64))
            });
            let mut services = sums.services.clone();
            services.sort();
            services.dedup();
            Rate {
                name: sums.name.clone(),
                layer: sums.layer.clone(),
                services,
                cgroup_id: *id,
                verdicts: sums.verdicts,
                lost: lost.filter(|(_, rate)| *rate > 0.0).collect(),
                happened: happened.filter(|(_, rate)| *rate > 0.0).collect(),
            }
        });
        let mut rates = Self {
            seconds,
            rows: rows.collect(),
        };
        rates.sort(sort);
        rates
    }

    /// Whether there was no second look yet.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The most first.
    pub fn sort(&mut self, by: TopSort) {
        self.rows.sort_by(|a, b| {
            let most = b.most(by).total_cmp(&a.most(by));
            let total = b.most(TopSort::Total).total_cmp(&a.most(TopSort::Total));
            let name = || a.name.cmp(&b.name).then(a.cgroup_id.cmp(&b.cgroup_id));
            match by {
                TopSort::Name => name(),
                _ => most.then(total).then_with(name),
            }
        });
    }

    /// The document of `--output json`.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "name": row.name,
                "layer": row.layer,
                "services": row.services,
                "cgroup_id": row.cgroup_id,
                "verdicts": row.verdicts,
                "lost_ms_per_second": row.lost,
                "happened_per_second": row.happened,
                "total_ms_per_second": row.most(TopSort::Total),
            })
        });
        json!({ "seconds": self.seconds, "workloads": rows.collect::<Vec<_>>() })
    }
}

impl Rate {
    fn sum(&self, lost: &[Cause], happened: &[Cause]) -> f64 {
        let of = |map: &BTreeMap<Cause, f64>, causes: &[Cause]| -> f64 {
            causes.iter().filter_map(|cause| map.get(cause)).sum()
        };
        of(&self.lost, lost) + of(&self.happened, happened)
    }

    fn most(&self, by: TopSort) -> f64 {
        match by {
            TopSort::Total => self.sum(&TOTAL, &[]),
            TopSort::Verdicts => self.verdicts as f64,
            TopSort::Name => 0.0,
            by => COLUMNS
                .iter()
                .filter(|column| column.sort == Some(by))
                .map(|column| self.sum(column.lost, column.happened))
                .sum(),
        }
    }
}

/// The table's lines, none longer than `columns`, at most `rows`.
pub(super) fn render(
    rates: &Rates,
    sort: TopSort,
    columns: usize,
    rows: usize,
    unicode: bool,
) -> Vec<String> {
    const FIGURE: usize = 9;
    const LAYER: usize = 6;
    const FIXED: usize = LAYER + 2 * FIGURE;
    // Figures give way to names, those on the right first.
    let name = 24
        .max(columns.saturating_sub(FIXED + COLUMNS.len() * FIGURE))
        .min(48);
    let room = columns.saturating_sub(name + FIXED) / FIGURE;
    let shown = &COLUMNS[..room.min(COLUMNS.len())];
    let mark = |title: &str, by: Option<TopSort>| match by {
        Some(by) if by == sort => format!("{title}*"),
        _ => title.to_owned(),
    };
    let mut head = format!(
        "{:<name$}{:<LAYER$}",
        mark("WORKLOAD", Some(TopSort::Name)),
        "LAYER"
    );
    head += &format!("{:>FIGURE$}", mark("TOTAL", Some(TopSort::Total)));
    for column in shown {
        head += &format!("{:>FIGURE$}", mark(column.title, column.sort));
    }
    head += &format!("{:>FIGURE$}", mark("VERDICTS", Some(TopSort::Verdicts)));
    let losing = rates
        .rows
        .iter()
        .filter(|row| row.most(TopSort::Total) > 0.0)
        .count();
    let mut legend = format!(
        "{losing} of {} workloads lose time: milliseconds a second",
        rates.rows.len()
    );
    let counts = shown.iter().filter(|column| !column.happened.is_empty());
    let counts: Vec<&str> = counts.map(|column| column.title).collect();
    if !counts.is_empty() {
        legend += &format!("; {}: times a second", counts.join(", "));
    }
    let mut lines = vec![legend, head];
    for row in &rates.rows {
        let mut line = pad(&fit(&row.name, name - 1, unicode), name);
        line += &format!(
            "{:<LAYER$}",
            visible(&row.layer).chars().take(3).collect::<String>()
        );
        line += &format!("{:>FIGURE$}", figure(row.most(TopSort::Total)));
        for column in shown {
            line += &format!("{:>FIGURE$}", figure(row.sum(column.lost, column.happened)));
        }
        let verdicts = match row.verdicts {
            0 => ".".to_owned(),
            n => n.to_string(),
        };
        line += &format!("{verdicts:>FIGURE$}");
        lines.push(line);
    }
    lines.truncate(rows);
    let cut = |line: String| match display_width(&line) > columns {
        true => fit(&line, columns, unicode),
        false => line,
    };
    lines.into_iter().map(cut).collect()
}

fn figure(value: f64) -> String {
    match value {
        v if v <= 0.0 => ".".to_owned(),
        v if v < 0.1 => "<0.1".to_owned(),
        v if v < 1_000.0 => format!("{v:.1}"),
        v => match v.partial_cmp(&1e7) {
            Some(Ordering::Less) => format!("{v:.0}"),
            _ => format!("{v:.1e}"),
        },
    }
}

/// What came from outside, at most so many columns of it.
fn fit(text: &str, columns: usize, unicode: bool) -> String {
    let shown: String = visible(text)
        .chars()
        .map(|c| if unicode || c.is_ascii() { c } else { '?' })
        .collect();
    if display_width(&shown) <= columns {
        return shown;
    }
    let mut out = String::new();
    for c in shown.chars() {
        out.push(c);
        if display_width(&out) >= columns {
            out.pop();
            break;
        }
    }
    out + if unicode { "…" } else { "~" }
}

fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(display_width(text));
    text.to_owned() + &" ".repeat(missing)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(throttled: f64, drops: u64) -> String {
        let row = |name: &str, id: u64, verdicts: u64| {
            json!({ "name": name, "workload": { "cgroup_id": id }, "layer": "L-3",
                "services": ["cart"], "verdicts": verdicts, "pid": 3,
                "lost_ms": { "cpu_throttle": throttled * id as f64, "sleep": 1e9 },
                "happened": { "net_drop": drops } })
        };
        json!({ "workloads": [
            row("shop/cart\u{1b}[2J/値段値段値段値段値段値段値段", 1, 2),
            row("shop/noisy", 2, 0),
            row("same cgroup", 1, 3),
        ] })
        .to_string()
    }

    fn rates(sort: TopSort) -> Rates {
        let at = Instant::now();
        let before = Look::parse(answer(100.0, 10).as_bytes(), at).unwrap();
        let now = Look::parse(answer(400.0, 16).as_bytes(), at + Duration::from_secs(2)).unwrap();
        Rates::between(&before, &now, sort)
    }

    #[test]
    fn rates_are_differences_by_time() {
        let json = rates(TopSort::Total).json();
        let rows = json["workloads"].as_array().unwrap();
        assert_eq!(rows.len(), 2, "one row for a cgroup");
        assert_eq!(rows[0]["name"], "shop/noisy");
        assert_eq!(rows[0]["lost_ms_per_second"]["cpu_throttle"], 300.0);
        assert_eq!(
            rows[1]["total_ms_per_second"], 150.0,
            "idle threads' sleep is no loss"
        );
        assert_eq!(rows[1]["happened_per_second"]["net_drop"], 3.0);
        assert_eq!(rows[1]["verdicts"], 5);
        assert_eq!(
            rates(TopSort::Verdicts).json()["workloads"][0]["verdicts"],
            5
        );
    }

    #[test]
    fn an_agent_started_anew_gives_no_negative_rates() {
        let at = Instant::now();
        let before = Look::parse(answer(100.0, 10).as_bytes(), at).unwrap();
        let now = Look::parse(answer(1.0, 2).as_bytes(), at + Duration::from_secs(1)).unwrap();
        let json = Rates::between(&before, &now, TopSort::Total).json();
        assert_eq!(
            json["workloads"][0]["lost_ms_per_second"]["cpu_throttle"],
            2.0
        );
    }

    #[test]
    fn lines_fit_and_nothing_steers_the_terminal() {
        for columns in [20, 40, 80, 100, 200] {
            for unicode in [true, false] {
                let lines = render(&rates(TopSort::Total), TopSort::Total, columns, 3, unicode);
                assert_eq!(lines.len(), 3);
                for line in lines {
                    assert!(display_width(&line) <= columns, "{columns}: {line:?}");
                    assert!(!line.chars().any(char::is_control), "{line:?}");
                    assert!(unicode || line.is_ascii(), "{line:?}");
                }
            }
        }
    }

    #[test]
    fn the_legend_speaks_of_the_columns_that_are_there() {
        for (columns, counts) in [
            (80, None),
            (110, Some("RETR")),
            (200, Some("RETR, DROP, DENIED")),
        ] {
            let lines = render(&rates(TopSort::Total), TopSort::Total, columns, 9, true);
            let told = lines[0].split_once("; ").map(|(_, told)| told);
            let expected = counts.map(|counts| format!("{counts}: times a second"));
            assert_eq!(told, expected.as_deref(), "{columns}: {lines:?}");
            assert!(lines[1].contains(" LAYER "), "{lines:?}");
        }
    }

    #[test]
    fn something_else_is_refused() {
        assert!(Look::parse(b"<html>", Instant::now()).is_err());
        assert!(Look::parse(b"{}", Instant::now()).is_err());
    }
}
