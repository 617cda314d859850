//! To be written (stub by the founder so that the binary links; overwrite freely).
pub mod arguments;
pub mod fault;
/// To be written.
pub async fn run(_args: arguments::DrillArgs) -> u8 { 70 }
