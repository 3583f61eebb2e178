use std::net::{TcpListener, TcpStream};

use super::*;
use crate::{host::roots::Roots, metrics::AgentMetrics, span::Resource};

fn joiner() -> Joiner {
    let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
    let mut config = JoinConfig::new("n1".to_owned());
    config.search_budget = Duration::from_secs(20);
    Joiner::new(Arc::new(identifier), config, |_| ())
}

fn of_service(name: &str, pid: Option<u32>) -> ResourceSpans {
    ResourceSpans {
        spans: 0..0,
        resource: Arc::new(Resource {
            service: name.to_owned(),
            pid,
            ..Resource::default()
        }),
        joined: Joined {
            identity: None,
            confidence: Confidence::Host,
        },
    }
}

fn sender(connection: Connection, peer: Peer) -> Sender {
    let sighting = Sighting {
        peer,
        ..Sighting::nothing()
    };
    Sender {
        connection,
        peer: watch::channel(Some(Arc::new(sighting))).1,
        state: Arc::default(),
    }
}

/// Spans inside a request are exported before the request's own, which names the connection: what
/// could not be said of the ones must not be said of the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_connection_is_no_answer_for_what_does() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    let ends = Ends {
        own: Some(own.ip()),
        own_port: Some(own.port()),
        remote: None,
        is_server: true,
    };
    let joiner = joiner();
    let collector = Connection::Tcp {
        local: ([127, 0, 0, 1], 4317).into(),
        peer: ([203, 0, 113, 1], 50_000).into(),
    };
    let sender = sender(collector, Peer::Remote);
    let mut of_two = ["one", "two"].map(|name| of_service(name, None));
    let mut confidences = Vec::new();
    for named in [vec![], vec![ends]] {
        let ends = |_: &ResourceSpans| named.clone();
        joiner.join(&sender, &mut of_two, &ends).await;
        confidences.push(of_two[0].joined.confidence);
    }
    assert_eq!(confidences, [Confidence::Host, Confidence::Socket]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_was_not_found_in_time_is_looked_for_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let connection = Connection::Tcp {
        local: stream.peer_addr().unwrap(),
        peer: stream.local_addr().unwrap(),
    };
    let joiner = joiner();
    let sender = sender(connection, Peer::Vanished);
    let ask = async |name: &str| {
        let mut resources = [of_service(name, Some(std::process::id()))];
        let nothing = |_: &ResourceSpans| Vec::new();
        joiner.join(&sender, &mut resources, &nothing).await;
        resources[0].joined.confidence
    };
    // Each of another resource, so that none is answered from memory. The search that the second
    // one starts is not waited for.
    assert_eq!(ask("one").await, Confidence::Host);
    assert_eq!(ask("two").await, Confidence::Host);
    let mut number = 0;
    while ask(&format!("another {number}")).await != Confidence::Process {
        number += 1;
        assert!(number < 2_000, "it was never found");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What was answered before is asked anew.
    assert_eq!(ask("one").await, Confidence::Process);
}

/// A search that found nobody is not made again for every batch.
#[test]
fn looks_for_whoever_holds_a_connection_become_rare() {
    let mut state = SenderState::default();
    let began = Instant::now();
    assert!(!state.is_look_due(began), "it was just looked for");
    let answer = || Answer {
        resource: of_service("one", None).resource,
        joined: of_service("one", None).joined,
        looked: None,
        is_named: false,
        at: began,
        services: 1,
        of: Of::Spans,
    };
    let (_, as_of) = state.heirs();
    state.remember(answer(), as_of);
    let looks: Vec<u64> = (0..3_600)
        .filter(|second| {
            let now = began + Duration::from_secs(*second);
            let is_due = state.is_look_due(now);
            if is_due {
                state.looked(Look::Nobody, now);
            }
            is_due
        })
        .collect();
    assert_eq!(looks[..5], [0, 10, 30, 70, 150]);
    let last: Vec<u64> = looks.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(last[5..].iter().all(|pause| *pause == 300), "{looks:?}");

    let (_, before) = state.heirs();
    state.looked(Look::Found(Arc::new(Sighting::nothing())), began);
    let (heirs, after) = state.heirs();
    assert!(heirs.is_some() && after != before);
    // An answer about who held it before comes too late.
    state.remember(answer(), before);
    assert!(!state.is_look_due(began + Duration::from_secs(7_200)));
}
