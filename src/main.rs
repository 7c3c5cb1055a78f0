//! kryptonfs
fn main() {}
