//! PodDisruptionBudgets that several pods share: each eviction takes one, and it comes back when a replacement is ready.

/// The budgets of one run.
#[derive(Debug)]
pub struct Budgets {
    left: Vec<u32>,
}

impl Budgets {
    /// `allowed[n]` pods of group `n` may be missing at once.
    pub fn new(allowed: &[u32]) -> Self {
        Self { left: allowed.to_vec() }
    }

    /// An eviction asks; false is a refusal.
    pub fn take(&mut self, group: Option<usize>) -> bool {
        match group.and_then(|group| self.left.get_mut(group)) {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    /// A replacement is ready.
    pub fn give_back(&mut self, group: usize) {
        if let Some(left) = self.left.get_mut(group) {
            *left += 1;
        }
    }
}
