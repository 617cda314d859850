//! Memory in proportion to the input.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What a document may cost to read whatever its size, in bytes: messages, the runtime's own.
const ALWAYS: usize = 256 * 1024;
/// What each byte of a document may cost. `[],` is three bytes and, in a list that doubles as it grows, three times
/// the 32 bytes of a JSON value.
const PER_BYTE: usize = 40;

/// The most that reading a document of `bytes` bytes may take, in bytes.
#[must_use]
pub fn of_document(bytes: usize) -> usize {
    ALWAYS + PER_BYTE * bytes
}

/// Runs `work`, and panics if it ever held more than `most` bytes beyond what was held before.
pub fn within<T>(most: usize, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let done = work();
    let taken = ALLOCATED.peak_usage().saturating_sub(before);
    assert!(taken <= most, "it took {taken} bytes, at most {most} are in proportion");
    done
}
