//! What the parser of addresses lets pass and nobody can mean.

use http::Uri;

/// What is said of one that [`has_impossible_port`].
pub const PORTS: &str = "the port must be 1 to 65535";

/// Whether a port was written that is none: the parser takes it for no port at all, and the
/// scheme's own would be asked instead, which is somebody else's.
#[must_use]
pub fn has_impossible_port(uri: &Uri) -> bool {
    let text = uri.authority().map_or("", |authority| authority.as_str());
    let host_and_port = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    match uri.port_u16() {
        Some(port) => port == 0,
        None => uri.host().is_some_and(|host| host != host_and_port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_or_there_is_none() {
        for (address, impossible) in [
            ("http://j:99999", true),
            ("http://j:65536/jaeger", true),
            ("http://j:0", true),
            ("http://j:", true),
            ("http://[::1]:70000/", true),
            ("http://me:secret@j:70000", true),
            ("j:99999", true),
            ("http://j:65535", false),
            ("http://j", false),
            ("http://[::1]/", false),
            ("http://[::1]:1", false),
            ("http://me:secret@j", false),
            ("/only/a/path", false),
        ] {
            let uri: Uri = address.parse().expect(address);
            assert_eq!(has_impossible_port(&uri), impossible, "{address}");
        }
    }
}
