//! Figures as people write them, and what they mean: `5-30 s`, `<10 ms`, `128 MB+`, `+0.1 ms`.

use serde::{Deserialize, Serialize};

/// What a dimension's figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// 1 to 5, or `rank 2 of 6`, where 1 is the best.
    Score,
    /// Time, in milliseconds.
    Duration,
    /// Memory, in megabytes (10^6 bytes).
    Memory,
    /// Part of a hundred.
    Percent,
    /// `low`, `medium`, `high`, `very high`.
    Level,
    /// Words.
    Text,
}

/// Words of [`Kind::Level`], lowest first.
const LEVELS: [&str; 4] = ["low", "medium", "high", "very high"];

/// What a figure says: a number or a range of numbers, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// Lowest value; 0 for `<10 ms`.
    pub low: f64,
    /// Highest value; none for `128 MB+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// `ms`, `MB`, `%`, `of 5`, `rank`, `level`.
    pub unit: &'static str,
}

impl Range {
    /// Whether every value is at most `limit`.
    #[must_use]
    pub fn is_within(&self, limit: f64) -> bool {
        self.high.is_some_and(|high| high <= limit)
    }

    /// Whether some value is below `limit`.
    #[must_use]
    pub fn can_be_below(&self, limit: f64) -> bool {
        self.low < limit
    }
}

impl Kind {
    /// Reads a figure; `None` for words.
    ///
    /// # Errors
    /// What is wrong with it and how it is written rightly.
    pub fn read(self, text: &str) -> Result<Option<Range>, String> {
        let range = match self {
            Self::Text if text.is_empty() => None,
            Self::Text => return Ok(None),
            Self::Level => level(text),
            Self::Score => score(text),
            Self::Duration | Self::Memory | Self::Percent => self.range(text),
        };
        range
            .map(Some)
            .ok_or_else(|| format!("{text:?} is no {}", self.wanted()))
    }

    /// Reads one quantity that a person gave as a limit, in this kind's unit.
    ///
    /// # Errors
    /// How it is written rightly.
    pub fn read_limit(self, text: &str) -> Result<f64, String> {
        self.quantity(text)
            .filter(|limit| *limit > 0.0)
            .ok_or_else(|| format!("{text:?} is no {}", self.wanted()))
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Score => "score: 1 to 5, or `rank 2 of 6`",
            Self::Duration => "time: a number with us, ms, s or min, e.g. 10ms",
            Self::Memory => "amount of memory: a number with kB, MB or GB, e.g. 5MB",
            Self::Percent => "percentage, e.g. 2%",
            Self::Level => "level: low, medium, high or very high",
            Self::Text => "text: it is empty",
        }
    }

    /// Unit words and what one of them is in this kind's unit.
    const fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Duration => &[
                ("ms", 1.0),
                ("us", 0.001),
                ("µs", 0.001),
                ("s", 1_000.0),
                ("min", 60_000.0),
            ],
            Self::Memory => &[
                ("MB", 1.0),
                ("MiB", 1.048_576),
                ("kB", 0.001),
                ("KB", 0.001),
                ("KiB", 0.001_024),
                ("GB", 1_000.0),
                ("GiB", 1_073.741_824),
            ],
            Self::Percent => &[("%", 1.0)],
            Self::Score | Self::Level | Self::Text => &[],
        }
    }

    fn quantity(self, text: &str) -> Option<f64> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        let factor = self.units().iter().find(|(word, _)| *word == unit)?.1;
        let number: f64 = number.parse().ok()?;
        number.is_finite().then_some(number * factor)
    }

    /// `5-30 s`, `<10 ms`, `<=125 ms`, `128 MB+`, `+0.1 ms`, `0.5-2 %`.
    fn range(self, text: &str) -> Option<Range> {
        let unit = self.units().first()?.0;
        let range = |low, high| Some(Range { low, high, unit });
        if let Some(most) = text.strip_prefix("<=").or_else(|| text.strip_prefix('<')) {
            return range(0.0, Some(self.quantity(most)?));
        }
        if let Some(least) = text.strip_suffix('+') {
            return range(self.quantity(least)?, None);
        }
        if let Some((low, high)) = text.split_once('-') {
            let word = high.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let (low, high) = (
                self.quantity(&format!("{low}{word}"))?,
                self.quantity(high)?,
            );
            return (low < high)
                .then_some(())
                .and_then(|()| range(low, Some(high)));
        }
        let value = self.quantity(text.strip_prefix('+').unwrap_or(text))?;
        range(value, Some(value))
    }
}

fn level(text: &str) -> Option<Range> {
    let at = LEVELS.iter().position(|level| *level == text)? as f64 + 1.0;
    Some(Range {
        low: at,
        high: Some(at),
        unit: "level",
    })
}

/// A rank counts from the worst, so that more is better as in a score.
fn score(text: &str) -> Option<Range> {
    let (value, unit) = match text.strip_prefix("rank ") {
        Some(rank) => {
            let (rank, of) = rank.split_once(" of ")?;
            let (rank, of): (u8, u8) = (rank.parse().ok()?, of.parse().ok()?);
            ((1..=of).contains(&rank).then(|| of - rank + 1)?, "rank")
        }
        None => (text.parse().ok().filter(|n| (1..=5).contains(n))?, "of 5"),
    };
    let value = f64::from(value);
    Some(Range {
        low: value,
        high: Some(value),
        unit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(kind: Kind, text: &str) -> (f64, Option<f64>) {
        let range = kind.read(text).unwrap().unwrap();
        (range.low, range.high)
    }

    #[test]
    fn figures_mean_what_they_say() {
        assert_eq!(ends(Kind::Duration, "5-30 s"), (5_000.0, Some(30_000.0)));
        assert_eq!(ends(Kind::Duration, "<10 ms"), (0.0, Some(10.0)));
        assert_eq!(ends(Kind::Duration, "<=125 ms"), (0.0, Some(125.0)));
        assert_eq!(ends(Kind::Duration, "+0.05 ms"), (0.05, Some(0.05)));
        assert_eq!(ends(Kind::Duration, "0 ms"), (0.0, Some(0.0)));
        assert_eq!(ends(Kind::Memory, "128 MB+"), (128.0, None));
        assert_eq!(ends(Kind::Percent, "0.5-2 %"), (0.5, Some(2.0)));
        assert_eq!(ends(Kind::Level, "very high"), (4.0, Some(4.0)));
        assert_eq!(ends(Kind::Score, "5"), (5.0, Some(5.0)));
        assert_eq!(ends(Kind::Score, "rank 1 of 6"), (6.0, Some(6.0)));
        assert_eq!(Kind::Text.read("veth pair"), Ok(None));
    }

    #[test]
    fn nonsense_is_refused_with_the_right_form() {
        for (kind, text) in [
            (Kind::Duration, "fast"),
            (Kind::Duration, "10"),
            (Kind::Duration, "30-5 s"),
            (Kind::Memory, "5 ms"),
            (Kind::Memory, "MB"),
            (Kind::Percent, "1..2 %"),
            (Kind::Score, "6"),
            (Kind::Score, "0"),
            (Kind::Score, "rank 7 of 6"),
            (Kind::Level, "huge"),
            (Kind::Text, ""),
        ] {
            let said = kind.read(text).unwrap_err();
            assert!(said.contains(&format!("{text:?}")), "{said}");
        }
    }

    #[test]
    fn limits_are_single_quantities() {
        assert_eq!(Kind::Duration.read_limit("10ms"), Ok(10.0));
        assert_eq!(Kind::Duration.read_limit("2 min"), Ok(120_000.0));
        assert_eq!(Kind::Memory.read_limit("1GiB"), Ok(1_073.741_824));
        assert_eq!(Kind::Percent.read_limit("2.5%"), Ok(2.5));
        for text in [
            "", "0ms", "-1ms", "5", "1-2 s", "<1 s", "NaNms", "1e9 s", "10 ms ms",
        ] {
            assert!(Kind::Duration.read_limit(text).is_err(), "{text}");
        }
    }
}
