use super::*;

fn answer(needs: &[(&str, &str)]) -> Answer {
    select(Request::new(needs.iter().copied()).unwrap())
}

fn first(needs: &[(&str, &str)]) -> String {
    let answer = answer(needs);
    let ids: Vec<_> = answer.ranks[0].layers.iter().map(|l| l.as_str()).collect();
    ids.join("+")
}

#[test]
fn each_rule_alone_puts_its_first_layer_first() {
    for rule in &data().selection.rules {
        let value = rule.value.as_deref().or(rule.up_to.as_deref()).unwrap();
        let answer = answer(&[(&rule.need, value)]);
        let best = &answer.ranks[0];
        assert_eq!(best.layers[..], rule.choose[..1], "{} {value}", rule.need);
        assert!(
            best.decided_by.contains(&rule.because),
            "{}",
            best.decided_by
        );
        assert!(best.leaves_out.is_empty() && !best.trade_off.is_empty());
        assert_eq!(best.beside, rule.beside);
        let chosen: Vec<_> = answer.ranks.iter().map(|r| r.layers[0]).collect();
        for layer in &rule.choose {
            assert!(chosen.contains(layer), "{layer} of {}", rule.because);
        }
    }
}

#[test]
fn the_documents_table_of_choices() {
    let table: &[(&[(&str, &str)], &str)] = &[
        (&[], "L-3"),
        (&[("scenario", "edge")], "L-4"),
        (&[("scenario", "microservices")], "L-3"),
        (&[("scenario", "serverless")], "L-4"),
        (&[("scenario", "compliance")], "L-1"),
        (&[("scenario", "ai-inference")], "L-4"),
        (&[("scenario", "ci-cd")], "L-3"),
        (&[("cold-start-below", "10ms")], "L-4"),
        (&[("cold-start-below", "5s")], "L-3"),
        (&[("isolation", "strongest")], "L-1"),
        (&[("isolation", "balanced")], "L-2"),
        (&[("density", "high")], "L-4"),
        (&[("network", "near-native")], "L-2"),
        (&[("storage", "high")], "L-3"),
        (&[("cpu-below", "1%")], "L-4"),
        (&[("memory-below", "5MB")], "L-4"),
        (&[("compliance", "multi-tenant")], "L-1"),
        (&[("compliance", "zero-trust")], "L-4"),
        (&[("compliance", "supply-chain")], "L-4"),
        (&[("cost", "infrastructure")], "L-3"),
        (&[("cost", "operations")], "L-3"),
        (&[("cost", "migration")], "L-3"),
    ];
    for (needs, layer) in table {
        assert_eq!(first(needs), *layer, "{needs:?}");
    }
}

#[test]
fn a_limit_that_is_hardly_kept_is_not_said_to_be_kept() {
    for (limit, may_be_more) in [("1us", true), ("5ms", true), ("10ms", false), ("2s", false)] {
        let answer = answer(&[("cold-start-below", limit)]);
        let reason = &answer.ranks[0].decided_by;
        assert_eq!(
            reason.contains("which may be more"),
            may_be_more,
            "{reason}"
        );
        assert_eq!(
            reason.contains("L-4 is <10 ms"),
            limit != "10ms",
            "{reason}"
        );
    }
}

#[test]
fn classes_are_weighed_in_their_order() {
    // Scenario before performance before security before cost, however they are typed.
    assert_eq!(
        first(&[("cost", "operations"), ("cold-start-below", "10ms")]),
        "L-4"
    );
    let answer = answer(&[("cost", "operations"), ("scenario", "serverless")]);
    assert_eq!(answer.needs, ["scenario serverless", "cost operations"]);
    assert_eq!(answer.ranks[0].layers, [Fault::L4]);
    assert_eq!(answer.ranks[0].leaves_out, ["cost operations"]);
}

#[test]
fn layers_are_combined_where_one_does_not_suffice() {
    assert_eq!(
        first(&[
            ("scenario", "microservices"),
            ("compliance", "multi-tenant")
        ]),
        "L-1+L-3"
    );
    assert_eq!(
        first(&[("network", "near-native"), ("storage", "high")]),
        "L-2+L-3"
    );
    assert_eq!(
        first(&[("scenario", "ci-cd"), ("compliance", "zero-trust")]),
        "L-3+L-4"
    );
    assert_eq!(
        first(&[("compliance", "regulated"), ("scenario", "serverless")]),
        "L-1+L-4"
    );
    let both = answer(&[
        ("scenario", "microservices"),
        ("compliance", "multi-tenant"),
    ]);
    assert!(
        both.ranks.iter().all(|r| r.layers.len() <= 2),
        "no more layers than serve"
    );
    let alone = answer(&[("scenario", "edge"), ("cold-start-below", "10ms")]);
    assert!(
        alone.ranks.iter().all(|r| r.layers.len() == 1),
        "one suffices"
    );
    assert!(alone.exclusions.is_empty());
    assert_eq!(alone.ranks[0].with, ["K3s", "WasmEdge"]);
}

#[test]
fn needs_that_exclude_each_other_are_said_to() {
    let answer = answer(&[("cold-start-below", "10ms"), ("compliance", "multi-tenant")]);
    let said = answer.exclusions.join("\n");
    assert!(said.contains("cold-start-below 10ms and compliance multi-tenant exclude each other"));
    assert!(said.contains("the cold start of L-1 is 5-30 s"), "{said}");
    assert_eq!(
        answer.ranks[0].layers,
        [Fault::L4],
        "performance before security"
    );
    let never = select(Request::new([("memory-below", "1kB")]).unwrap());
    assert!(never.ranks.is_empty());
    assert!(
        never.exclusions[0].starts_with("Nothing serves memory-below 1kB: L-1 has 128 MB+, "),
        "{never:?}"
    );
}

#[test]
fn a_limit_is_kept_by_figures_and_members_are_told_apart() {
    let answer = answer(&[("cold-start-below", "200ms")]);
    assert_eq!(answer.ranks.len(), 1);
    assert!(
        answer.ranks[0]
            .decided_by
            .contains("the cold start of L-4 is <10 ms")
    );
    let members = answer.ranks[0].members.join("\n");
    assert!(
        members.contains("Firecracker keeps cold-start-below 200ms (<125 ms)"),
        "{members}"
    );
    assert!(
        members.contains("Kata Containers may not keep"),
        "{members}"
    );
    let partly = select(Request::new([("cold-start-below", "3s")]).unwrap());
    let l3 = partly
        .ranks
        .iter()
        .find(|r| r.layers == [Fault::L3])
        .unwrap();
    assert_eq!(l3.serves_partly, ["cold-start-below 3s"]);
}

#[test]
fn disagreement_about_isolation_is_shown() {
    let said = answer(&[("isolation", "strongest")]).document().plain(100);
    assert!(said.contains("Sources contradict each other:"), "{said}");
}

#[test]
fn wrong_values_are_told_what_is_right() {
    let wrong = |need, value| Request::new([(need, value)]).unwrap_err().to_string();
    assert!(wrong("scenario", "moon").contains("edge, microservices"));
    assert!(wrong("cold-start-below", "soon").contains("10ms"));
    assert!(wrong("weight", "1").contains("no need"));
}

#[test]
fn no_request_is_left_without_an_answer_or_a_reason() {
    // Every pair of needs, every value.
    let words: Vec<(&str, &str)> = data()
        .selection
        .rules
        .iter()
        .map(|r| (&*r.need, r.value.as_deref().or(r.up_to.as_deref()).unwrap()))
        .collect();
    for one in &words {
        for other in words.iter().filter(|other| other.0 != one.0) {
            let answer = answer(&[*one, *other]);
            let all_served = answer.ranks.iter().any(|rank| rank.leaves_out.is_empty());
            assert_eq!(
                all_served,
                answer.exclusions.is_empty(),
                "{one:?} {other:?}: {answer:?}"
            );
        }
    }
}
