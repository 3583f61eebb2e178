use std::io::Write as _;

use super::*;

#[test]
fn each_file_once_and_where_the_process_context_is() {
    let text = b"\
55d0c8c00000-55d0c8c02000 r--p 00000000 fe:00 1234 /usr/bin/app\n\
55d0c8c02000-55d0c8c06000 r-xp 00002000 fe:00 1234 /usr/bin/app\n\
7f0000000000-7f0000001000 r--p 00000000 fe:00 77 /opt/with space/lib.so (deleted)\n\
7f0000010000-7f0000011000 r--p 00000000 fe:00 77 /opt/with space/lib.so (deleted)\n\
7f0000020000-7f0000021000 rw-p 00000000 00:00 0\n\
7f0000030000-7f0000031000 rw-p 00000000 00:01 9 /memfd:OTEL_CTX (deleted)\n\
7f0000040000-7f0000041000 r--p 00000000 fe:00 78 /lib/ld-musl-x86_64.so.1\n\
nonsense\n\
\xff\xfe-7f 0 0 0 0\n";
    let maps = Maps::parse(text);
    let files: Vec<_> = maps.files.iter().map(|f| (f.start, &*f.path)).collect();
    assert_eq!(
        files,
        [
            (0x55d0_c8c0_0000, "/usr/bin/app"),
            (0x7f00_0000_0000, "/opt/with space/lib.so (deleted)"),
            (0x7f00_0004_0000, "/lib/ld-musl-x86_64.so.1"),
        ]
    );
    assert_eq!(maps.files[0].range, "55d0c8c00000-55d0c8c02000");
    assert_eq!(maps.process_context, Some(0x7f00_0003_0000));
    assert!(maps.is_musl);
    assert_eq!(Maps::parse(b""), Maps::default());
}

/// Whatever a file holds, looking into it ends, without a variable.
#[test]
fn files_that_lie_export_nothing() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let head = &own[..own.len().min(1 << 16)];
    let look = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        object_file::find(&file).unwrap_or(None)
    };
    assert_eq!(look(b""), None);
    assert_eq!(look(b"#!/bin/sh\n"), None);
    assert_eq!(look(head), None, "its sections are beyond its end");
    for at in 16..64 {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = head.to_vec();
            bytes[at] = value;
            assert_eq!(look(&bytes), None, "byte {at} is {value}");
        }
    }
}

#[test]
fn a_loader_that_has_not_said_yet_is_not_believed() {
    let mut memory = tempfile::tempfile().unwrap();
    let words: [u64; 6] = [0, 0, 7, 40, u64::MAX - 99, 1 << 40];
    for word in words {
        memory.write_all(&word.to_le_bytes()).unwrap();
    }
    let file = |access| {
        let variable = Variable {
            first_address: 0,
            access,
        };
        let maps = Maps::parse(b"0-1 r--p 00000000 fe:00 1 /a\n");
        place(&memory, &maps.files[0], &variable, false).unwrap()
    };
    let at = |offset, module, entry_bytes| {
        Ok(ContextPlace {
            offset,
            module,
            entry_bytes,
        })
    };
    assert_eq!(file(Access::Static { offset: -8 }), at(-8, 0, 0));
    assert_eq!(file(Access::Offset { slot: 32 }), at(-100, 0, 0));
    assert!(file(Access::Offset { slot: 0 }).is_err(), "not filled in");
    assert!(file(Access::Offset { slot: 40 }).is_err(), "absurd");
    assert_eq!(file(Access::Index { slot: 16 }), at(40, 7, 16));
    assert!(file(Access::Index { slot: 0 }).is_err(), "not filled in");
    assert_eq!(file(Access::Descriptor { slot: 24 }), at(-100, 0, 0));
    assert!(file(Access::Unknown).is_err());
}

#[test]
fn a_process_context_is_read_whole_or_not_at_all() {
    let payload = b"\x12\x2a\x0a\x1athreadlocal.schema_version\x12\x0c\x0a\x0atlsdesc_v1";
    let read = |version: u32, published: u64, payload: &[u8]| {
        let mut memory = tempfile::tempfile().unwrap();
        memory.write_all(b"OTEL_CTX").unwrap();
        memory.write_all(&version.to_ne_bytes()).unwrap();
        let size = u32::try_from(payload.len()).unwrap();
        memory.write_all(&size.to_ne_bytes()).unwrap();
        memory.write_all(&published.to_ne_bytes()).unwrap();
        memory.write_all(&32_u64.to_ne_bytes()).unwrap();
        memory.write_all(payload).unwrap();
        ProcessContext::read(&memory, 0).unwrap().thread_schema
    };
    assert_eq!(read(2, 1, payload).as_deref(), Some("tlsdesc_v1"));
    assert_eq!(read(3, 1, payload), None, "another layout");
    assert_eq!(read(2, 0, payload), None, "being written");
    assert_eq!(read(2, 1, &payload[..9]), None, "not a message");
    assert_eq!(read(2, 1, b""), None);
    assert!(is_followed("tlsdesc_v1_dev") && is_followed("tls_v1"));
    assert!(!is_followed("go_pprof_labels_v1"));
}
