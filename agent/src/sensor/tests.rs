use super::*;

#[test]
fn a_selection_names_what_is_mandatory() {
    assert_eq!(Selection::parse("auto"), Ok(Selection::Auto));
    let both = Selection::parse("cpu, auto").unwrap();
    assert!(both.requires("cpu") && both.wants("tcp") && !both.requires("tcp"));
    let only = Selection::parse("cpu").unwrap();
    assert!(only.requires("cpu") && !only.wants("tcp"));
}

#[test]
fn an_unknown_sensor_is_answered_with_the_list() {
    let error = Selection::parse("cpu,gpu").unwrap_err();
    assert_eq!(error, UnknownSensor("gpu".into()));
    assert!(error.to_string().contains("seccomp"));
}

#[test]
fn the_table_agrees_with_its_sensors() {
    let mut ids = Vec::new();
    for entry in SENSORS {
        let Some(sensor) = entry.sensor else { continue };
        assert_eq!(sensor.name(), entry.name);
        ids.push(sensor.id());
        for family in sensor.families() {
            assert_eq!(family.id / 16, sensor.id(), "{}", family.name);
            assert!(family.name.starts_with("isostack_"), "{}", family.name);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    let built = SENSORS.iter().filter(|entry| entry.sensor.is_some());
    assert_eq!(ids.len(), built.count(), "no id twice");
}
