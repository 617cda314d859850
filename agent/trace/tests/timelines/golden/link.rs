//! The uplink of a golden timeline: one rate, given to the lowest rank first. Bytes per millisecond.

/// One save on its way.
struct Transfer {
    id: u64,
    rank: u64,
    left: u64,
}

/// The link.
pub struct Link {
    pub rate: u64,
    transfers: Vec<Transfer>,
    settled: u64,
    /// Grows with every change: an end that was foreseen before it means nothing any more.
    pub version: u64,
}

impl Link {
    pub const fn new(rate: u64) -> Self {
        Self { rate, transfers: Vec::new(), settled: 0, version: 0 }
    }

    /// Moves bytes up to `now`.
    pub fn settle(&mut self, now: u64) {
        let mut bytes = now.saturating_sub(self.settled) * self.rate;
        self.settled = now;
        self.version += 1;
        for transfer in &mut self.transfers {
            let moved = bytes.min(transfer.left);
            transfer.left -= moved;
            bytes -= moved;
        }
    }

    pub fn add(&mut self, id: u64, rank: u64, left: u64) {
        self.transfers.push(Transfer { id, rank, left });
        self.transfers.sort_by_key(|transfer| (transfer.rank, transfer.id));
    }

    /// Moves a transfer to another rank.
    pub fn move_to(&mut self, id: u64, rank: u64) {
        self.transfers
            .iter_mut()
            .filter(|transfer| transfer.id == id)
            .for_each(|transfer| transfer.rank = rank);
        self.transfers.sort_by_key(|transfer| (transfer.rank, transfer.id));
    }

    /// Ends a transfer; what it had left.
    pub fn remove(&mut self, id: u64) -> Option<u64> {
        let at = self.transfers.iter().position(|transfer| transfer.id == id)?;
        Some(self.transfers.remove(at).left)
    }

    /// Which is complete.
    pub fn complete(&self) -> Option<u64> {
        self.transfers.iter().find(|transfer| transfer.left == 0).map(|transfer| transfer.id)
    }

    /// When the first will be complete.
    pub fn next(&self, now: u64) -> Option<u64> {
        self.transfers.first().map(|first| now + first.left.div_ceil(self.rate))
    }

    pub fn clear(&mut self) {
        self.transfers.clear();
    }
}
