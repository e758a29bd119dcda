//! Memory for the sums over rows.

use crate::Real;

/// Memory that backward passes reuse for the partial sums of dweight and dbias.
///
/// A pass over `rows` rows of `features` keeps one pair of rows for each level of the tree of chunks, for
/// each thread: about 2 features x (2 + log2(rows / 8)) numbers. It is allocated on first use, grows when a
/// larger call comes, and never shrinks.
///
/// ```
/// let workspace = layernorm::Workspace::<f32>::new();
/// assert_eq!(workspace.len(), 0);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Workspace<T> {
    memory: Vec<T>,
}

impl<T: Real> Workspace<T> {
    /// An empty one. Does not allocate.
    pub const fn new() -> Self {
        Self { memory: Vec::new() }
    }

    /// Numbers that it has room for.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Has it room for nothing, as before its first use?
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// Room for `len` numbers, of whatever value.
    pub(crate) fn room(&mut self, len: usize) -> &mut [T] {
        if self.memory.len() < len {
            self.memory.resize(len, T::from_f64(0.0));
        }
        &mut self.memory[..len]
    }
}
