use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;

use super::*;

fn limits(max_bytes: usize, budget: usize) -> Limits {
    Limits {
        max_bytes,
        timeout: Duration::from_secs(60),
        budget: Arc::new(Semaphore::new(budget)),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_comes_back_also_in_several_members() {
    let text: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let limits = limits(1 << 22, 1 << 22);
    let held = gunzip(&gzip(&text), &limits).unwrap();
    assert_eq!(held.bytes, text);
    assert_eq!(limits.budget.available_permits(), (1 << 22) - text.len());
    drop(held);
    assert_eq!(limits.budget.available_permits(), 1 << 22);
    let two = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(gunzip(&two, &limits).unwrap().bytes, &b"one two"[..]);
    assert_eq!(gunzip(&gzip(b""), &limits).unwrap().bytes, &b""[..]);
}

#[test]
fn a_bomb_stops_at_the_limit_and_damage_is_said() {
    let bomb = gzip(&vec![0; 50 << 20]);
    assert!(bomb.len() < 1 << 20, "it is small on the wire");
    let error = gunzip(&bomb, &limits(1 << 20, usize::MAX >> 4)).unwrap_err();
    assert!(matches!(error, BodyError::TooLarge(_)), "{error}");
    let error = gunzip(&bomb, &limits(1 << 30, 1 << 20)).unwrap_err();
    assert!(matches!(error, BodyError::Full), "{error}");
    let good = gzip(&[1; 1000]);
    for bad in [&b"not gzip"[..], &good[..good.len() - 5], &good[..5]] {
        let error = gunzip(bad, &limits(1 << 20, 1 << 20)).unwrap_err();
        assert!(matches!(error, BodyError::Gzip(_)), "{error}");
    }
}

#[tokio::test]
async fn a_body_keeps_to_size_and_budget() {
    let body = || Full::new(Bytes::from(vec![7; 1000]));
    let limited = limits(1000, 1000);
    let held = read(body(), &limited, |_| 0).await.unwrap();
    assert_eq!(held.bytes, vec![7; 1000]);
    let error = read(body(), &limited, |_| 0).await.unwrap_err();
    assert!(matches!(error, BodyError::Full), "{error}");
    drop(held);
    assert!(read(body(), &limited, |_| usize::MAX).await.is_ok());
    let error = read(body(), &limits(999, 1000), |_| 0).await.unwrap_err();
    assert!(matches!(error, BodyError::TooLarge(999)), "{error}");
}
