//! The uplink: one rate, given strictly to the lowest rank first. Time in, time out.

/// One transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub life: u32,
    pub id: u64,
    pub rank: u64,
    pub left: u64,
}

/// The link. Rates are bytes per millisecond.
#[derive(Debug)]
pub struct Link {
    rate: u64,
    cap: Option<(u64, u64)>,
    transfers: Vec<Transfer>,
    settled: u64,
    pub version: u64,
}

impl Link {
    pub const fn new(rate: u64, now: u64) -> Self {
        Self { rate, cap: None, transfers: Vec::new(), settled: now, version: 0 }
    }

    /// What the line carries, whatever the store makes of it: bytes per millisecond.
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    fn now_rate(&self) -> u64 {
        self.cap.map_or(self.rate, |(rate, _)| rate.min(self.rate)).max(1)
    }

    /// Moves bytes up to `now`.
    pub fn settle(&mut self, now: u64) {
        let mut bytes = now.saturating_sub(self.settled).saturating_mul(self.now_rate());
        self.settled = now;
        self.transfers.sort_by_key(|transfer| (transfer.rank, transfer.id));
        for transfer in &mut self.transfers {
            let moved = bytes.min(transfer.left);
            transfer.left -= moved;
            bytes -= moved;
        }
        if self.cap.is_some_and(|(_, until)| now >= until) {
            self.cap = None;
        }
        self.version += 1;
    }

    /// Nothing was moved until `now`.
    pub const fn stands_still_until(&mut self, now: u64) {
        self.settled = now;
    }

    pub fn add(&mut self, transfer: Transfer) {
        self.transfers.push(transfer);
    }

    /// Ends a transfer; what it had left.
    pub fn remove(&mut self, life: u32, id: u64) -> Option<u64> {
        let at = self.transfers.iter().position(|transfer| (transfer.life, transfer.id) == (life, id))?;
        Some(self.transfers.remove(at).left)
    }

    /// Moves a transfer to another rank.
    pub fn move_to(&mut self, life: u32, id: u64, rank: u64) {
        let found = self.transfers.iter_mut().find(|transfer| (transfer.life, transfer.id) == (life, id));
        found.into_iter().for_each(|transfer| transfer.rank = rank);
    }

    /// Takes what is complete.
    pub fn complete(&mut self) -> Vec<Transfer> {
        let (done, open) = self.transfers.drain(..).partition(|transfer| transfer.left == 0);
        self.transfers = open;
        done
    }

    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    pub fn cap(&mut self, rate: u64, until: u64) {
        self.cap = Some((rate, until));
    }

    /// When something changes by itself.
    pub fn next(&self, now: u64) -> Option<u64> {
        let first = self.transfers.iter().min_by_key(|transfer| (transfer.rank, transfer.id));
        let done = first.map(|first| now + first.left.div_ceil(self.now_rate()));
        match (done, self.cap) {
            (Some(done), Some((_, until))) if until > now => Some(done.min(until)),
            (done, _) => done,
        }
    }

    /// An agent died: its own transfers with it.
    pub fn drop_life(&mut self, life: u32) {
        self.transfers.retain(|transfer| transfer.life != life);
    }
}
