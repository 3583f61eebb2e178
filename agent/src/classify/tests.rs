use std::ops::ControlFlow;

use proptest::prelude::*;

use super::{
    stream::{Found, Stream},
    *,
};

fn classify(line: &str) -> Option<&'static str> {
    Classifier::get()
        .classify(line.as_bytes(), Only::default())
        .map(|hit| hit.rule.id)
}

/// What the streaming reader finds when the bytes come in pieces of these sizes.
fn found_in_pieces(bytes: &[u8], pieces: &[usize]) -> Vec<(u64, &'static str)> {
    let mut stream = Stream::new(Only::default());
    let mut found = Vec::new();
    let mut sink = |line: Found<'_>| {
        found.push((line.line_number, line.hit.rule.id));
        ControlFlow::<()>::Continue(())
    };
    let (mut rest, mut sizes) = (bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let space = stream.space();
        let n = (*sizes.next().unwrap()).min(rest.len()).min(space.len());
        space[..n].copy_from_slice(&rest[..n]);
        rest = &rest[n..];
        assert!(stream.advance(n, &mut sink).is_continue());
    }
    assert!(stream.finish(&mut sink).is_continue());
    found
}

#[test]
fn each_rule_takes_its_line_and_leaves_its_near_miss() {
    assert!(LOG_RULES.len() >= 120, "{} rules", LOG_RULES.len());
    for rule in LOG_RULES {
        assert_eq!(classify(rule.line), Some(rule.id), "{}", rule.line);
        assert_ne!(
            classify(rule.near_miss),
            Some(rule.id),
            "{}",
            rule.near_miss
        );
        assert!(!rule.source.is_empty());
    }
}

/// The keywords of the field's own documents, which users will try first.
#[test]
fn every_keyword_of_the_isolation_stack_names_its_layer() {
    for (line, layer) in [
        ("VMX operation", "L-0"),
        ("EPT violation", "L-0"),
        ("SEV initialization failed", "L-0"),
        ("VF reset", "L-0"),
        ("VMCS corruption", "L-1"),
        ("QEMU process crashed", "L-1"),
        ("vMotion failed", "L-1"),
        ("VMWP (Virtual Machine Worker Process) stopped", "L-1"),
        ("grant table error", "L-2"),
        ("event channel broken", "L-2"),
        ("virtio-net driver not loaded", "L-2"),
        ("virtio_net: eth0: tx timeout", "L-2"),
        ("virtio-net tx queue 0 is full", "L-2"),
        ("virtio_net rx_queue 0 full", "L-2"),
        ("virtio_net rx_queue 0 stuck", "L-2"),
        ("VMBus initialization failed", "L-2"),
        ("ContainerCreating", "L-3"),
        ("OOMKilled", "L-3"),
        ("namespace creation failed", "L-3"),
        ("seccomp: Operation not permitted", "L-3"),
        ("capability not permitted", "L-3"),
        ("nf_conntrack: table full", "L-3"),
        ("Gofer broken pipe", "L-4"),
        ("Sentry syscall denied", "L-4"),
        ("Firecracker MicroVM failed", "L-4"),
        ("Firecracker MicroVM failed to start", "L-4"),
        ("Kata shimv2 timeout", "L-4"),
        ("WASI operation not permitted", "L-4"),
        ("Chrome renderer sandbox violation", "L-4"),
    ] {
        for line in [
            line.to_owned(),
            line.to_lowercase(),
            format!("Mar  1 10:11:12 n1 x[7]: {line}."),
        ] {
            let hit = Classifier::get().classify(line.as_bytes(), Only::default());
            assert_eq!(
                hit.map(|hit| hit.rule.layer.as_str()),
                Some(layer),
                "{line}"
            );
        }
    }
}

#[test]
fn only_some_layers() {
    let line = b"audit: type=1326 audit(1.1:1): pid=7 comm=\"chrome\" syscall=1";
    let rule = |layers: &[Layer]| {
        let hit = Classifier::get().classify(line, Only { layers });
        hit.map(|hit| hit.rule.id)
    };
    assert_eq!(rule(&[]), Some("chrome_audit_seccomp"));
    assert_eq!(rule(&[Layer::Container]), Some("audit_seccomp"));
    assert_eq!(rule(&[Layer::HardwareAssist]), None);
}

#[test]
fn groups_say_whom_it_is_about() {
    let classifier = Classifier::get();
    let line = b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/a,task_memcg=/a/b,task=x,pid=42,uid=0";
    let hit = classifier.classify(line, Only::default()).unwrap();
    assert_eq!(classifier.group(hit, line, "cgroup"), Some(&b"/a/b"[..]));
    assert_eq!(classifier.group(hit, line, "pid"), Some(&b"42"[..]));
    assert_eq!(classifier.group(hit, line, "nobody"), None);
}

#[test]
fn of_a_chain_of_errors_the_reason_counts() {
    let line = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to create \
                containerd task: failed to create shim task: OCI runtime create failed: runc create \
                failed: unable to start container process: container init was OOM-killed (memory \
                limit too low?): unknown";
    assert_eq!(classify(line), Some("oom_killed"));
}

#[test]
fn a_line_longer_than_every_buffer_is_seen_once() {
    let mut bytes = b"first\n".to_vec();
    for _ in 0..3 {
        bytes.extend(vec![b'x'; 300_000]);
        bytes.extend_from_slice(b" OOMKilled ");
    }
    bytes.extend(vec![b'y'; 700_000]);
    bytes.extend_from_slice(b"\nlast, OOMKilled\r\nno end: EPT violation");
    let expected = [(2, "oom_killed"), (3, "oom_killed"), (4, "ept_violation")];
    assert_eq!(found_in_pieces(&bytes, &[usize::MAX]), expected);
    assert_eq!(found_in_pieces(&bytes, &[1000, 1, 70_001]), expected);
}

#[test]
fn memory_stays_flat_on_endless_input() {
    let mut stream = Stream::new(Only::default());
    let mut lines = 0_u64;
    let mut sink = |_: Found<'_>| {
        lines += 1;
        ControlFlow::<()>::Continue(())
    };
    let size = stream.space().len();
    for _ in 0..200 {
        stream.space().fill(b'z');
        let n = stream.space().len();
        assert!(n > 0 && n <= size);
        assert!(stream.advance(n, &mut sink).is_continue());
    }
    let tail = b" OOMKilled\n";
    stream.space()[..tail.len()].copy_from_slice(tail);
    assert!(stream.advance(tail.len(), &mut sink).is_continue());
    assert_eq!(lines, 1);
    assert_eq!(stream.space().len(), size, "all of it is free again");
}

/// The corpus: three quarters of it ordinary lines, made the same in every run.
#[test]
fn precision_and_recall() {
    let ordinary = include_str!("../../tests/data/log_lines/ordinary.txt");
    let speaking = include_str!("../../tests/data/log_lines/speaking.txt");
    let templates = |text: &'static str| text.lines().filter(|line| !line.starts_with('#'));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut corpus: Vec<(Option<&str>, String)> = Vec::new();
    for template in templates(ordinary) {
        corpus.extend((0..14).map(|_| (None, dice.fill(template))));
    }
    for line in templates(speaking) {
        let (rule, template) = line.split_once(": ").unwrap();
        assert!(LOG_RULES.iter().any(|known| known.id == rule), "{rule}");
        corpus.extend((0..6).map(|_| (Some(rule), dice.fill(template))));
    }
    let silent = corpus.iter().filter(|(rule, _)| rule.is_none()).count();
    assert!(
        corpus.len() >= 2000 && silent * 4 >= corpus.len() * 3,
        "{silent} of {}",
        corpus.len()
    );

    let (mut right, mut wrong, mut missed) = (0, Vec::new(), Vec::new());
    for (expected, line) in &corpus {
        match (expected, classify(line)) {
            (Some(expected), Some(found)) if *expected == found => right += 1,
            (_, Some(found)) => wrong.push(format!("{found}: {line}")),
            (Some(expected), None) => missed.push(format!("{expected}: {line}")),
            (None, None) => {}
        }
    }
    let precision = f64::from(right) / (f64::from(right) + wrong.len() as f64);
    let recall = f64::from(right) / (corpus.len() - silent) as f64;
    println!(
        "{} lines: precision {precision:.4}, recall {recall:.4}",
        corpus.len()
    );
    wrong.dedup_by_key(|line| line.chars().take(24).collect::<String>());
    missed.dedup_by_key(|line| line.chars().take(24).collect::<String>());
    assert!(precision >= 0.99, "{precision}: {wrong:#?}");
    assert!(recall >= 0.98, "{recall}: {missed:#?}\n{wrong:#?}");
}

/// Fills templates; xorshift, so that every run has the same lines.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn fill(&mut self, template: &str) -> String {
        const WORDS: &[&str] = &[
            "cart", "shop", "orders", "web", "billing", "search", "etl", "mail", "edge",
        ];
        const CARDS: &[&str] = &["eth0", "ens3", "enp1s0f0", "bond0"];
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((name, after)) = after
                .split_once('}')
                .filter(|(name, _)| ["n", "p", "ip", "hex", "w", "t", "if"].contains(name))
            else {
                out.push('{');
                rest = after;
                continue;
            };
            let text = match name {
                "n" => self.roll(1000).to_string(),
                "p" => (1000 + self.roll(60_000)).to_string(),
                "ip" => format!(
                    "10.{}.{}.{}",
                    self.roll(256),
                    self.roll(256),
                    self.roll(256)
                ),
                "hex" => format!("{:012x}", self.roll(1 << 48)),
                "w" => WORDS[self.roll(WORDS.len())].to_owned(),
                "t" => format!(
                    "{:02}:{:02}:{:02}",
                    self.roll(24),
                    self.roll(60),
                    self.roll(60)
                ),
                _ => CARDS[self.roll(CARDS.len())].to_owned(),
            };
            out.push_str(&text);
            rest = after;
        }
        out + rest
    }
}

/// Lines with and without something to find, and bytes of any kind.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let rule = (0..LOG_RULES.len()).prop_map(|index| LOG_RULES[index].line.as_bytes().to_vec());
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    let line = prop_oneof![rule, noise];
    proptest::collection::vec(line, 0..30).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_what_each_line_alone_gives(
        bytes in lines(),
        pieces in proptest::collection::vec(1_usize..5000, 1..8),
    ) {
        let alone: Vec<_> = bytes
            .split(|byte| *byte == b'\n')
            .zip(1..)
            .filter_map(|(line, number)| {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let hit = Classifier::get().classify(line, Only::default())?;
                Some((number, hit.rule.id))
            })
            .collect();
        prop_assert_eq!(found_in_pieces(&bytes, &pieces), alone);
    }

    #[test]
    fn the_automaton_hides_nothing_that_the_expressions_and_literals_find(
        before in proptest::collection::vec(any::<u8>(), 0..40),
        index in 0..LOG_RULES.len(),
        cut in 0..200_usize,
    ) {
        let mut line = before;
        line.retain(|byte| *byte != b'\n');
        let example = LOG_RULES[index].line.as_bytes();
        line.extend_from_slice(&example[..example.len().saturating_sub(cut)]);
        let lower = line.to_ascii_lowercase();
        let best = LOG_RULES.iter().filter(|rule| {
            let has = |literal: &&str| lower.windows(literal.len()).any(|part| part == literal.as_bytes());
            rule.literals.iter().any(has) && pattern::compile(rule.pattern).unwrap().is_match(&line)
        }).map(|rule| rule.confidence).max_by(f64::total_cmp);
        let hit = Classifier::get().classify(&line, Only::default());
        prop_assert_eq!(hit.map(|hit| hit.rule.confidence), best);
    }
}
