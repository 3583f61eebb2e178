//! Readers outside of the process find the variable by its name: a program, unlike a library,
//! exports only what it is told to.

fn main() {
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=otel_thread_ctx_v1");
}
