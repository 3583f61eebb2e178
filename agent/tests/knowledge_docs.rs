//! The documents say what the program does: `docs/layers.md` is what the knowledge generates, and
//! no sensor is left out.

use std::{env, fs, path::PathBuf};

use isostack_agent::{knowledge::page::page, sensor::SENSORS};

#[test]
fn the_page_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/layers.md");
    let generated = page();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed
        .lines()
        .zip(generated.lines())
        .find(|(old, new)| old != new);
    assert!(
        committed == generated,
        "docs/layers.md is not what the knowledge says (first difference: {differs:?}): run \
         `UPDATE_DOCS=1 cargo test -p isostack-agent --test knowledge_docs` and commit the result"
    );
}

#[test]
fn every_sensor_has_a_page_and_a_row_in_the_overview() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let overview = fs::read_to_string(root.join("README.md")).unwrap();
    for sensor in SENSORS {
        let page = format!("docs/sensors/{}.md", sensor.name);
        assert!(root.join(&page).is_file(), "{page}");
        let row = format!("| [`{}`]({page}) |", sensor.name);
        assert!(overview.contains(&row), "README.md lacks {row}");
    }
}
