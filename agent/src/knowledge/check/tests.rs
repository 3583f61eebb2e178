use super::*;
use crate::knowledge::data::{Combination, Figures, Technology};

/// A mistake to make.
type Change = Box<dyn FnOnce(&mut Data)>;

fn data() -> Data {
    Data::read().unwrap()
}

fn after(change: impl FnOnce(&mut Data)) -> String {
    let mut data = data();
    change(&mut data);
    mistakes(&data).join("\n")
}

#[test]
fn the_data_is_sound() {
    assert_eq!(mistakes(&data()), Vec::<String>::new());
}

#[test]
fn every_kind_of_mistake_is_found() {
    let table: Vec<(&str, Change)> = vec![
        (
            "app is no layer",
            Box::new(|d| d.technologies.technologies[0].layer = Fault::App),
        ),
        (
            "name \"VMX\" is there twice",
            Box::new(|d| {
                let again = Technology {
                    id: "VMX".into(),
                    ..d.technologies.technologies[0].clone()
                };
                d.technologies.technologies.push(again);
            }),
        ),
        (
            "name \"kvm\" is there twice",
            Box::new(|d| d.layers.concepts[0].also = vec!["kvm".into()]),
        ),
        (
            "the place L-3 is missing",
            Box::new(|d| d.layers.places.retain(|p| p.id != Fault::L3)),
        ),
        (
            "L-3: layers, and only layers, have one slice",
            Box::new(|d| d.layers.slices.retain(|s| s.place != Fault::L3)),
        ),
        (
            "have a trade-off",
            Box::new(|d| d.layers.places[0].tradeoff.clear()),
        ),
        (
            "there is no docker in its layer",
            Box::new(|d| {
                let part = d
                    .technologies
                    .technologies
                    .iter_mut()
                    .find(|t| t.id == "wasmedge")
                    .unwrap();
                part.part_of = Some("docker".into());
            }),
        ),
        (
            "unknown dimension \"weight\"",
            Box::new(|d| {
                d.layers.figures[0]
                    .values
                    .insert("weight".into(), "1 kg".into());
            }),
        ),
        (
            "cold_start of L-1: \"slow\" is no time",
            Box::new(|d| {
                d.layers.figures[1]
                    .values
                    .insert("cold_start".into(), "slow".into());
            }),
        ),
        (
            "unknown source \"hearsay\"",
            Box::new(|d| d.layers.figures[0].source = "hearsay".into()),
        ),
        (
            "figures of \"L-9\": no layer",
            Box::new(|d| d.layers.figures[0].of = "L-9".into()),
        ),
        (
            "set of figures \"L-0 from layer-table\" is there twice",
            Box::new(|d| {
                let again = Figures {
                    of: "L-0".into(),
                    ..d.layers.figures[0].clone()
                };
                d.layers.figures.push(again);
            }),
        ),
        (
            "dimension \"density\" has no figure",
            Box::new(|d| {
                d.layers.figures.iter_mut().for_each(|f| {
                    f.values.remove("density");
                });
            }),
        ),
        (
            "no figure is from source \"concept-table\"",
            Box::new(|d| {
                d.layers.figures.retain(|f| f.source != "concept-table");
            }),
        ),
        (
            "the cause steal is missing",
            Box::new(|d| d.causes.causes.retain(|c| c.id != Cause::Steal)),
        ),
        (
            "steal: no remedy can be said when nothing is known",
            Box::new(|d| {
                d.causes.causes[2].remedies[0].at = vec![Fault::L1];
            }),
        ),
        (
            "cpu_throttle: remedies after one that always fits",
            Box::new(|d| d.causes.causes[0].remedies.reverse()),
        ),
        (
            "is no metric of this agent",
            Box::new(|d| d.causes.causes[0].metrics[0] = "node_load1".into()),
        ),
        (
            "is never used: there is no need \"speed\"",
            Box::new(|d| d.selection.rules[0].need = "speed".into()),
        ),
        (
            "value of scenario \"edge\" is there twice",
            Box::new(|d| d.selection.rules[1].value = Some("edge".into())),
        ),
        (
            "two rules are for the same limit",
            Box::new(|d| {
                let rule = d
                    .selection
                    .rules
                    .iter_mut()
                    .find(|r| r.from.is_some())
                    .unwrap();
                rule.from = Some("5 ms".into());
            }),
        ),
        (
            "need cost has no rule",
            Box::new(|d| d.selection.rules.retain(|r| r.need != "cost")),
        ),
        (
            "no need is of class \"cost\"",
            Box::new(|d| d.selection.needs.retain(|n| n.class != "cost")),
        ),
        (
            "host is no layer",
            Box::new(|d| d.selection.rules[0].choose = vec![Fault::Host]),
        ),
        (
            "these layers are combined twice",
            Box::new(|d| {
                let again = Combination {
                    ..d.selection.combinations[0].clone()
                };
                d.selection.combinations.push(again);
            }),
        ),
        (
            "one layer is no combination",
            Box::new(|d| d.selection.combinations[0].layers.truncate(1)),
        ),
        (
            "which is no place",
            Box::new(|d| d.localisation.questions[0].of = Some("moon".into())),
        ),
        (
            "leads nowhere",
            Box::new(|d| d.localisation.symptoms[0].causes.clear()),
        ),
    ];
    for (expected, change) in table {
        let found = after(change);
        assert!(
            found.contains(expected),
            "wanted {expected:?}, found {found:?}"
        );
    }
}
