//! Between which addresses a span says that it went on, by today's and older names of the
//! semantic conventions. Read only where a span's process is not known otherwise.

use std::net::{IpAddr, SocketAddr};

use super::{
    view::Attribute,
    wire::{Fields, Value},
};
use crate::span::SpanView;

/// Spans of one resource that are looked at.
const MAX_SPANS: usize = 64;
/// Different connections that are told of one resource.
const MAX_ENDS: usize = 4;
/// `SpanKind` on the wire.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// The two ends of a connection as the span's own process has them; `None` where the span does
/// not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Its own address.
    pub own: Option<IpAddr>,
    /// Its own port.
    pub own_port: Option<u16>,
    /// The other end.
    pub remote: Option<SocketAddr>,
    /// It accepted the connection.
    pub is_server: bool,
}

impl Ends {
    /// Whether that can tell one socket from others.
    const fn is_telling(&self) -> bool {
        self.remote.is_some() || (self.is_server && self.own.is_some() && self.own_port.is_some())
    }
}

/// What the names stand for, seen from the span's own process. Best first: what the socket
/// says, then what the protocol says, then older names.
const OWN: &[&[u8]] = &[
    b"network.local.address",
    b"net.sock.host.addr",
    b"net.host.ip",
];
const OWN_PORT: &[&[u8]] = &[
    b"network.local.port",
    b"net.sock.host.port",
    b"net.host.port",
];
const REMOTE: &[&[u8]] = &[
    b"network.peer.address",
    b"net.sock.peer.addr",
    b"net.peer.ip",
];
const REMOTE_PORT: &[&[u8]] = &[
    b"network.peer.port",
    b"net.sock.peer.port",
    b"net.peer.port",
];
/// The end of the server, as the client named it; an address or a name.
const OF_SERVER: &[&[u8]] = &[b"server.address", b"net.peer.name"];
const PORT_OF_SERVER: &[&[u8]] = &[b"server.port", b"net.peer.port"];
/// The end of the client, as the server sees it, perhaps by the word of a proxy.
const OF_CLIENT: &[&[u8]] = &[b"client.address", b"http.client_ip"];
const PORT_OF_CLIENT: &[&[u8]] = &[b"client.port"];

/// What the spans say, each connection once.
#[must_use]
pub fn of_spans(payload: &[u8], spans: &[SpanView]) -> Vec<Ends> {
    let mut all = Vec::new();
    for span in spans.iter().take(MAX_SPANS) {
        let body = payload.get(span.body.start as usize..span.body.end as usize);
        let ends = body.and_then(|body| of_span(body, span.kind));
        if let Some(ends) = ends
            && !all.contains(&ends)
        {
            all.push(ends);
            if all.len() == MAX_ENDS {
                break;
            }
        }
    }
    all
}

fn of_span(body: &[u8], kind: i32) -> Option<Ends> {
    if kind != SERVER && kind != CLIENT {
        return None;
    }
    let is_server = kind == SERVER;
    let mut own = Best::default();
    let mut own_port = Best::default();
    let mut remote = Best::default();
    let mut remote_port = Best::default();
    let (names, ports) = if is_server {
        (OF_CLIENT, PORT_OF_CLIENT)
    } else {
        (OF_SERVER, PORT_OF_SERVER)
    };
    let mut fields = Fields::new(body);
    while let Ok(Some(field)) = fields.next_field() {
        let (9, Value::Len(attribute)) = (field.number, field.value) else {
            continue;
        };
        let Ok(attribute) = Attribute::read(attribute, 4) else {
            continue;
        };
        own.offer(&attribute, OWN, 0, address);
        own_port.offer(&attribute, OWN_PORT, 0, port);
        remote.offer(&attribute, REMOTE, 0, address);
        remote.offer(&attribute, names, REMOTE.len(), address);
        remote_port.offer(&attribute, REMOTE_PORT, 0, port);
        remote_port.offer(&attribute, ports, REMOTE_PORT.len(), port);
        if is_server {
            // Where it listens, if the connection is over.
            own_port.offer(&attribute, &[b"server.port"], OWN_PORT.len(), port);
        }
    }
    let ends = Ends {
        own: own.value(),
        own_port: own_port.value(),
        remote: remote
            .value()
            .zip(remote_port.value())
            .map(|(address, port)| SocketAddr::new(address, port)),
        is_server,
    };
    ends.is_telling().then_some(ends)
}

/// The value of the name that ranks first.
struct Best<T>(Option<(usize, T)>);

impl<T> Default for Best<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Best<T> {
    fn offer(
        &mut self,
        attribute: &Attribute<'_>,
        names: &[&[u8]],
        after: usize,
        read: impl Fn(&Attribute<'_>) -> Option<T>,
    ) {
        let Some(rank) = names.iter().position(|name| *name == attribute.key) else {
            return;
        };
        let rank = rank + after;
        if self.0.as_ref().is_none_or(|(best, _)| rank < *best)
            && let Some(value) = read(attribute)
        {
            self.0 = Some((rank, value));
        }
    }

    fn value(self) -> Option<T> {
        self.0.map(|(_, value)| value)
    }
}

/// An address in numbers; a name is nothing that a socket has.
fn address(attribute: &Attribute<'_>) -> Option<IpAddr> {
    let text = std::str::from_utf8(attribute.string()?).ok()?;
    let text = text.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = text.parse().ok()?;
    let address = address.to_canonical();
    (!address.is_unspecified()).then_some(address)
}

/// Some write numbers as text.
fn port(attribute: &Attribute<'_>) -> Option<u16> {
    let number = attribute.int().or_else(|| {
        let text = std::str::from_utf8(attribute.string()?).ok()?;
        text.parse().ok()
    })?;
    u16::try_from(number).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value as Any},
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message as _;

    use super::*;
    use crate::{otlp::view::parse, time::MonoNs};

    fn ends(kind: i32, attributes: &[(&str, &str)]) -> Vec<Ends> {
        let attribute = |(key, value): &(&str, &str)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue {
                value: Some(match value.parse() {
                    Ok(number) => Any::IntValue(number),
                    Err(_) => Any::StringValue((*value).to_owned()),
                }),
            }),
            ..KeyValue::default()
        };
        let span = Span {
            kind,
            attributes: attributes.iter().map(attribute).collect(),
            ..Span::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans: vec![span.clone(), span],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let batch = parse(request.encode_to_vec().into(), MonoNs(0)).unwrap();
        of_spans(&batch.payload, &batch.spans)
    }

    fn told(kind: i32, attributes: &[(&str, &str)]) -> (String, String) {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        match &ends(kind, attributes)[..] {
            [one] => {
                let own = text(one.own.map(|a| a.to_string()));
                let own_port = text(one.own_port.map(|p| p.to_string()));
                let remote = text(one.remote.map(|r| r.to_string()));
                (format!("{own} {own_port}"), remote)
            }
            [] => ("nothing".to_owned(), String::new()),
            several => panic!("{several:?}"),
        }
    }

    fn pair(own: &str, remote: &str) -> (String, String) {
        (own.to_owned(), remote.to_owned())
    }

    #[test]
    fn names_of_today_and_older_ones_from_both_sides() {
        let today = [
            ("network.peer.address", "10.0.0.7"),
            ("network.peer.port", "40000"),
            ("network.local.address", "::ffff:10.0.0.5"),
            ("network.local.port", "8080"),
            ("client.address", "203.0.113.9"),
            ("server.address", "shop.example"),
            ("server.port", "80"),
        ];
        let server = pair("10.0.0.5 8080", "10.0.0.7:40000");
        assert_eq!(told(SERVER, &today), server);
        let older = [
            ("net.sock.peer.addr", "10.0.0.7"),
            ("net.sock.peer.port", "40000"),
            ("net.sock.host.addr", "10.0.0.5"),
            ("net.host.port", "8080"),
        ];
        assert_eq!(told(SERVER, &older), server);
        let oldest = [
            ("net.peer.ip", "10.0.0.7"),
            ("net.peer.port", "40000"),
            ("net.host.ip", "10.0.0.5"),
            ("net.host.port", "8080"),
        ];
        assert_eq!(told(SERVER, &oldest), server);
        let client = [("server.address", "10.96.0.1"), ("server.port", "5432")];
        assert_eq!(told(CLIENT, &client), pair("- -", "10.96.0.1:5432"));
        let mixed = [
            ("server.address", "db.example"),
            ("server.port", "5432"),
            ("network.peer.address", "fd00::1"),
        ];
        assert_eq!(told(CLIENT, &mixed), pair("- -", "[fd00::1]:5432"));
        let listens = [("network.local.address", "10.0.0.5"), ("server.port", "80")];
        assert_eq!(told(SERVER, &listens), pair("10.0.0.5 80", "-"));
    }

    #[test]
    fn what_tells_no_socket_from_others_is_nothing() {
        let nothing = pair("nothing", "");
        assert_eq!(told(CLIENT, &[]), nothing);
        let name = [("server.address", "db.example"), ("server.port", "5432")];
        assert_eq!(told(CLIENT, &name), nothing);
        let absurd = [
            ("network.peer.address", "10.0.0.7"),
            ("network.peer.port", "70000"),
        ];
        assert_eq!(told(CLIENT, &absurd), nothing);
        let any = [
            ("network.peer.address", "0.0.0.0"),
            ("network.peer.port", "1"),
        ];
        assert_eq!(told(SERVER, &any), nothing);
        let whole = [
            ("network.peer.address", "10.0.0.7"),
            ("network.peer.port", "1"),
        ];
        assert_eq!(told(1, &whole), nothing, "an internal span");
    }
}
