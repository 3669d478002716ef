//! A table of values under small integer keys; freed keys are used again.

pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free_head: usize,
    len: usize,
}

enum Entry<T> {
    Full(T),
    Free { next: usize },
}

const NONE: usize = usize::MAX;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { entries: Vec::new(), free_head: NONE, len: 0 }
    }
}

impl<T> Slab<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The key that the next `insert` will use.
    pub(crate) fn vacant_key(&self) -> usize {
        if self.free_head == NONE { self.entries.len() } else { self.free_head }
    }

    pub(crate) fn insert(&mut self, value: T) -> usize {
        let key = self.vacant_key();
        if let Some(entry) = self.entries.get_mut(key) {
            let Entry::Free { next } = *entry else { unreachable!("the free list holds free entries only") };
            self.free_head = next;
            *entry = Entry::Full(value);
        } else {
            self.entries.push(Entry::Full(value));
        }
        self.len += 1;
        key
    }

    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        match self.entries.get_mut(key) {
            Some(Entry::Full(v)) => Some(v),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: usize) -> Option<T> {
        let entry = self.entries.get_mut(key)?;
        if matches!(entry, Entry::Free { .. }) {
            return None;
        }
        let Entry::Full(v) = std::mem::replace(entry, Entry::Free { next: self.free_head }) else {
            unreachable!()
        };
        self.free_head = key;
        self.len -= 1;
        Some(v)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|e| match e {
            Entry::Full(v) => Some(v),
            Entry::Free { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_used_again_and_stale_keys_find_nothing() {
        let mut s = Slab::default();
        let a = s.insert('a');
        let b = s.insert('b');
        assert_eq!(s.remove(a), Some('a'));
        assert_eq!(s.remove(a), None);
        assert_eq!(s.vacant_key(), a);
        assert_eq!(s.insert('c'), a);
        assert_eq!(s.get_mut(b), Some(&mut 'b'));
        assert_eq!(s.iter().copied().collect::<String>(), "cb");
        assert_eq!(s.len(), 2);
    }
}
