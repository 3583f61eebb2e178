//! Query strings of the API, checked: a value that cannot be meant is answered with a
//! sentence, not with silence.

use thiserror::Error;

use super::store::Filter;
use crate::{span::TraceId, time::UnixNs, vocabulary::Cause};

/// The answer is status 400 and this sentence.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QueryError {
    /// `limit` is not a number in range.
    #[error("limit is `{0}`: give a number from 1 to {MAX_LIMIT}")]
    Limit(String),
    /// `cause` is not in the list.
    #[error("cause is `{0}`: give one of {list}", list = causes())]
    Cause(String),
    /// `trace_id` is not one.
    #[error("trace_id is `{0}`: give 32 hexadecimal digits")]
    TraceId(String),
    /// `from` or `to` is no time.
    #[error("{name} is `{value}`: give nanoseconds since the epoch, as `start_unix_nano` has them")]
    Time {
        /// Which.
        name: &'static str,
        /// As given.
        value: String,
    },
    /// A name that this endpoint does not have.
    #[error("`{name}` is not a parameter here: there are {known}")]
    Unknown {
        /// As given.
        name: String,
        /// Names that exist.
        known: &'static str,
    },
    /// Not a query string.
    #[error("the query cannot be read: {0}")]
    Unreadable(String),
    /// A parameter twice.
    #[error("`{0}` is given twice: give it once")]
    Twice(&'static str),
}

/// Rows answered without `limit`.
pub const DEFAULT_LIMIT: usize = 100;
/// Largest `limit`.
pub const MAX_LIMIT: usize = 1_000;
/// What is repeated of a bad value.
const MAX_ECHO: usize = 64;

/// Parses `?limit= ?service= ?cause= ?trace_id= ?from= ?to= ?workload=`; `known` are the names that the endpoint
/// takes, separated by a comma and a blank.
///
/// # Errors
/// When a name is unknown or given twice, or a value is out of its range.
pub fn parse(pairs: Vec<(String, String)>, known: &'static str) -> Result<Filter, QueryError> {
    let mut limit = None;
    let mut service = None;
    let mut cause = None;
    let mut trace_id = None;
    let mut from = None;
    let mut to = None;
    let mut workload = None;
    for (name, value) in pairs {
        if !known.split(", ").any(|k| k == name) {
            let name = echo(&name);
            return Err(QueryError::Unknown { name, known });
        }
        match &*name {
            "limit" => once(&mut limit, "limit", parse_limit(&value)?)?,
            "cause" => once(&mut cause, "cause", parse_cause(&value)?)?,
            "trace_id" => once(&mut trace_id, "trace_id", parse_trace_id(&value)?)?,
            "from" => once(&mut from, "from", parse_time("from", &value)?)?,
            "to" => once(&mut to, "to", parse_time("to", &value)?)?,
            "workload" => once(&mut workload, "workload", value)?,
            _ => once(&mut service, "service", value)?,
        }
    }
    Ok(Filter {
        limit: limit.unwrap_or(DEFAULT_LIMIT),
        service,
        cause,
        trace_id,
        from,
        to,
        workload,
    })
}

fn parse_time(name: &'static str, value: &str) -> Result<UnixNs, QueryError> {
    let time = value.parse().map(UnixNs);
    time.map_err(|_| QueryError::Time {
        name,
        value: echo(value),
    })
}

fn once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), QueryError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(QueryError::Twice(name)),
    }
}

fn parse_limit(value: &str) -> Result<usize, QueryError> {
    let limit = value.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
    limit.ok_or_else(|| QueryError::Limit(echo(value)))
}

fn parse_cause(value: &str) -> Result<Cause, QueryError> {
    let cause = Cause::ALL.iter().find(|c| c.as_str() == value);
    cause.copied().ok_or_else(|| QueryError::Cause(echo(value)))
}

fn parse_trace_id(value: &str) -> Result<TraceId, QueryError> {
    let bad = || QueryError::TraceId(echo(value));
    if value.len() != 32 || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let id = u128::from_str_radix(value, 16).map_err(|_| bad())?;
    Ok(id.to_be_bytes())
}

fn echo(value: &str) -> String {
    let shown = &value[..value.floor_char_boundary(MAX_ECHO)];
    shown.escape_debug().to_string()
}

fn causes() -> String {
    let words: Vec<_> = Cause::ALL.iter().map(|c| c.as_str()).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "limit, service, cause, trace_id";

    fn of(pairs: &[(&str, &str)]) -> Result<Filter, QueryError> {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        parse(pairs.collect(), ALL)
    }

    #[test]
    fn good_values_are_taken() {
        let filter = of(&[
            ("limit", "7"),
            ("service", "shop & co"),
            ("cause", "cpu_throttle"),
            ("trace_id", "0AF7651916CD43DD8448EB211C80319C"),
        ])
        .unwrap();
        assert_eq!(filter.limit, 7);
        assert_eq!(filter.service.as_deref(), Some("shop & co"));
        assert_eq!(filter.cause, Some(Cause::CpuThrottle));
        assert_eq!(filter.trace_id.unwrap()[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(of(&[]).unwrap().limit, DEFAULT_LIMIT);
    }

    #[test]
    fn bad_values_are_named() {
        for limit in ["0", "1001", "-1", "ten", ""] {
            assert_eq!(
                of(&[("limit", limit)]).unwrap_err(),
                QueryError::Limit(limit.into())
            );
        }
        let said = of(&[("cause", "cpu_trottle")]).unwrap_err().to_string();
        assert!(
            said.contains("`cpu_trottle`") && said.contains("cpu_throttle, runqueue"),
            "{said}"
        );
        for id in ["", "abc", "+af7651916cd43dd8448eb211c80319c", "zz"] {
            assert!(
                matches!(of(&[("trace_id", id)]), Err(QueryError::TraceId(_))),
                "{id}"
            );
        }
        assert_eq!(
            of(&[("limit", "1"), ("limit", "2")]).unwrap_err(),
            QueryError::Twice("limit")
        );
        assert!(matches!(
            of(&[("sevice", "x")]),
            Err(QueryError::Unknown { .. })
        ));
        let long = "é\n".repeat(500);
        assert!(of(&[("limit", &long)]).unwrap_err().to_string().len() < 300);
    }
}
