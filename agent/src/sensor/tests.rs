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
fn records_of_no_sensor_are_refused() {
    assert_eq!(decode(&[]), Err(DecodeError::Length(0)));
    assert_eq!(decode(&[1, 0, 0]), Err(DecodeError::Length(3)));
    let id = 77_u32;
    assert_eq!(
        decode(&id.to_ne_bytes()),
        Err(DecodeError::Unknown {
            sensor: id,
            kind: 0
        })
    );
}
