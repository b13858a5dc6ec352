//! temporary
#![allow(dead_code, unused_imports, missing_docs)]
#[path = "../common/mod.rs"]
mod common;
mod estate;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let n: u64 = a[2].parse().unwrap();
    let e = if n >= 1<<26 { estate::Estate::of_bytes(a[1].clone().into(), n) } else { estate::Estate::of_refs(a[1].clone().into(), n) };
    let t = std::time::Instant::now();
    e.make().unwrap();
    println!("{:?} {e:?}", t.elapsed());
}
