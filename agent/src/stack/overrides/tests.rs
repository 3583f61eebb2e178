use super::*;

const RULES: &str = r#"
[[rule]]
cgroup = "/shop/*/inner"
layers = ["L-4:my-sandbox", "L-3:runc"]
reason = "started by our own tool"

[[rule]]
exe = "/opt/**"
comm = "vend*"
layers = ["L-4:vendor"]
keep = true

[[rule]]
host = true
layers = ["L-1:kvm", "L-0:svm"]

[[rule]]
cgroup = "/plain"
layers = []
"#;

fn facts(cgroup: &str, exe: &str, comm: &str) -> ProcessFacts {
    ProcessFacts {
        cgroup_path: cgroup.into(),
        exe: exe.into(),
        comm: comm.into(),
        ..ProcessFacts::default()
    }
}

fn found() -> Stack {
    Stack(vec![StackEntry {
        layer: Layer::Container,
        technology: "namespaces".into(),
        evidence: "x".into(),
    }])
}

#[test]
fn the_first_rule_that_fits_counts_and_says_so() {
    let rules = Overrides::parse(RULES, "o.toml").unwrap();
    let of = |facts: &ProcessFacts| rules.process(facts, found());
    let replaced = of(&facts("/shop/a/inner", "", ""));
    assert_eq!(replaced.to_string(), "L-4:my-sandbox/L-3:runc");
    assert_eq!(
        replaced.0[0].evidence,
        "rule 1 of o.toml: started by our own tool; found without it: L-3:namespaces"
    );
    assert_eq!(
        of(&facts("/shop/a/b/inner", "", "")),
        found(),
        "* stops at /"
    );
    let kept = of(&facts("/", "/opt/a/b/tool", "vendor1"));
    assert_eq!(kept.to_string(), "L-4:vendor/L-3:namespaces");
    assert_eq!(kept.0[1].evidence, "x");
    assert_eq!(
        of(&facts("/", "/opt/tool", "other")),
        found(),
        "both must fit"
    );
    assert_eq!(of(&facts("/plain", "", "")), Stack::default());
    assert_eq!(rules.host(found()).to_string(), "L-1:kvm/L-0:svm");
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_rule_and_what_to_do() {
    let table = [
        (
            "[[rule]]\nlayers = [\"L-3:x\"]",
            "rule 1 of the stack override f: give cgroup",
        ),
        (
            "[[rule]]\nhost = true\ncgroup = \"/a\"\nlayers = []",
            "or host = true",
        ),
        (
            "[[rule]]\ncgroup = \"/a\"\nlayers = [\"L-9:x\"]",
            "\"L-9:x\" is no layer",
        ),
        (
            "[[rule]]\ncgroup = \"/a\"\nlayers = [\"runc\"]",
            "write it as \"L-3:runc\"",
        ),
        (
            "[[rule]]\ncgroup = \"/a\"\nlayers = [\"L-3:R C\"]",
            "lower-case letters",
        ),
        (
            "[[rule]]\ncgroup = \"\"\nlayers = [\"L-3:x\"]",
            "cgroup is empty",
        ),
        (
            "[[rule]]\ncgroup = \"a/b\"\nlayers = [\"L-3:x\"]",
            "must begin with /",
        ),
        (
            "[[rule]]\nexe = \"/a[\"\nlayers = [\"L-3:x\"]",
            "exe is no pattern",
        ),
        (
            "[[rule]]\ncgruop = \"/a\"\nlayers = []",
            "unknown field `cgruop`",
        ),
        (
            "[[rule]]\ncgroup = \"/a\"\nkeep = true\nlayers = []",
            "changes nothing",
        ),
        ("nonsense", "is not valid"),
    ];
    for (text, expected) in table {
        let error = Overrides::parse(text, "f").unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let many = "[[rule]]\ncgroup = \"/a\"\nlayers = []\n".repeat(MAX_RULES + 1);
    let error = Overrides::parse(&many, "f").unwrap_err().to_string();
    assert!(error.contains("at most 256 rules"), "{error}");
    let error = Overrides::read(Path::new("/nowhere/at/all"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("check --stack-override"), "{error}");
}
