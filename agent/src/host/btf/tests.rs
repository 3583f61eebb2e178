use super::*;

fn here() -> KernelTypes {
    KernelTypes::read(Path::new("/sys")).expect("the test machine has BTF")
}

fn field(structure: &'static str, path: &'static str, size: u32) -> KernelField {
    KernelField {
        symbol: "",
        structure,
        path,
        size,
        needed_by: "cpu",
    }
}

#[test]
fn every_required_member_is_found_in_the_running_kernel() {
    for sensor in ["cpu", "tcp", "net", "memory"] {
        assert_eq!(here().fields().missing(sensor), Vec::<String>::new());
    }
}

#[test]
fn a_structures_size_is_the_kernels() {
    let types = here();
    assert_eq!(types.size_of("list_head"), Some(16));
    assert_eq!(types.size_of("no_such_structure"), None);
}

#[test]
fn a_path_adds_up_its_steps() {
    let types = here();
    let whole = types.offset(&field("task_struct", "se.cfs_rq", 8));
    let entity = types.0.resolve_types_by_name("sched_entity").unwrap();
    let Type::Struct(entity) = &entity[0] else {
        panic!("sched_entity is a structure");
    };
    let se = types.offset(&field("task_struct", "se", entity.size() as u32));
    let cfs_rq = types.offset(&field("sched_entity", "cfs_rq", 8));
    assert_eq!(whole, Some(se.unwrap() + cfs_rq.unwrap()));
}

#[test]
fn an_array_element_lies_at_its_enumerators_place() {
    let types = here();
    let first = types.offset(&field("css_set", "subsys[cpuset_cgrp_id]", 8));
    let cpu = types.offset(&field("css_set", "subsys[cpu_cgrp_id]", 8));
    let index = types.enumerator("cgroup_subsys_id", "cpu_cgrp_id").unwrap();
    assert_eq!(cpu.unwrap() - first.unwrap(), index * 8);
    assert_ne!(index, 0);
}

#[test]
fn what_is_not_there_or_not_as_stated_is_absent() {
    let types = here();
    for absent in [
        field("task_struct", "no_such_member", 4),
        field("no_such_structure", "pid", 4),
        field("task_struct", "pid", 8),
        field("task_struct", "pid.value", 4),
        field("css_set", "subsys[no_such_id]", 8),
        field("task_struct", "in_iowait", 4), // a single bit
    ] {
        assert_eq!(types.offset(&absent), None, "{absent:?}");
    }
}

#[test]
fn a_single_bit_is_found_by_size_0() {
    let types = here();
    let bit = types.offset(&field("task_struct", "in_iowait", 0));
    let size = types.0.resolve_types_by_name("task_struct").unwrap();
    let Type::Struct(task) = &size[0] else {
        panic!("task_struct is a structure");
    };
    assert!(bit.unwrap() / 8 < task.size() as u32);
    assert_eq!(types.offset(&field("task_struct", "pid", 0)), None);
}

#[test]
fn no_btf_says_which_file() {
    let dir = tempfile::tempdir().unwrap();
    let error = KernelTypes::read(dir.path()).err().expect("there is none");
    assert!(error.to_string().contains("kernel/btf/vmlinux"), "{error}");
}

#[test]
fn arguments_of_tracepoints_are_found_by_place_and_type() {
    let types = here();
    let has = |index, structure| {
        types.has_argument(&KernelArgument {
            symbol: "",
            tracepoint: "sched_switch",
            index,
            structure,
        })
    };
    assert!(has(1, "task_struct") && has(2, "task_struct") && has(0, ""));
    assert!(!has(0, "task_struct"), "bool preempt");
    assert!(!has(1, "rq") && !has(9, ""));
}

#[test]
fn enumerators_come_with_their_names() {
    let list = here().enumerators("cgroup_subsys_id");
    let cpu = list.iter().find(|(name, _)| name == "cpu_cgrp_id");
    let value = here().enumerator("cgroup_subsys_id", "cpu_cgrp_id");
    assert_eq!(cpu.map(|(_, value)| *value), value);
    assert_eq!(here().enumerators("no_such_enum"), []);
}
