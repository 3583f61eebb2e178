//! Answers of which a segment is dropped, in network namespaces of the test.

use super::*;

/// Everything is real: the answer is dropped once, and who asked waits until it is sent again.
#[test]
fn who_waits_for_a_dropped_answer_is_told_that() {
    of_a_dropped_answer(&[b"y"]);
}

/// Its head has come by then, and is read while nobody waits yet.
#[test]
fn who_waits_for_the_rest_of_an_answer_is_told_that() {
    of_a_dropped_answer(&[b"h", b"y"]);
}

/// Three requests; the second segment of all answers is dropped.
fn of_a_dropped_answer(answer: &'static [&[u8]]) {
    let agent = Agent::start("tcp,net,wait");
    agent.sensors.demand(Activation::WhileTracking, true);
    let pair = Pair::ipv4_only();
    let listener = pair.b.enter(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    pair.a.run(
        "iptables -A INPUT -p tcp --tcp-flags PSH PSH \
         -m statistic --mode nth --every 1000 --packet 1 -j DROP",
    );
    let answers = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        while client.read_exact(&mut [0]).is_ok() {
            // Later than in the tick of the clock in which it was asked: once in a tick the
            // connection is looked at.
            thread::sleep(Duration::from_millis(20));
            for part in answer {
                client.write_all(part).unwrap();
            }
        }
    });
    let victim = Home::new();
    let parts = "read -r -N 1 -u 4 answer; ".repeat(answer.len());
    let mut asking = victim.spawn(&format!(
        "exec nsenter {} bash -c 'exec 4<>/dev/tcp/{}/{port}; sleep 0.5; \
         for n in 1 2 3; do printf x >&4; {parts} done'",
        pair.a.net(),
        pair.b.address
    ));
    let pid = asking.pid();
    let identity = agent.identify(pid, &victim);
    assert!(agent.sensors.track(pid));
    asking.begin();
    asking.end();
    answers.join().unwrap();
    let seen = agent.finish();
    let waits: Vec<&Delay> = seen
        .delays(pid, Cause::NetDrop)
        .filter(|delay| delay.end > delay.start)
        .collect();
    let [wait] = waits[..] else {
        panic!("one of three answers was dropped: {waits:?}");
    };
    let span = (wait.start.0 - MS, wait.end.0 + MS);
    let verdict = seen.verdict(&identity, span, &[]).expect("it waited");
    assert_eq!((verdict.fault, verdict.cause), (Fault::L3, Cause::NetDrop));
    let said = "packets were dropped through ve1 (NETFILTER_DROP)";
    assert!(verdict.summary.ends_with(said), "{}", verdict.summary);
}
