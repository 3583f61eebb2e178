//! A bounded cache in two generations: what is not asked for during a whole generation goes.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Generations<K, V> {
    /// Holds at least the last `capacity` / 2 keys used, at most `capacity`.
    pub fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity,
        }
    }

    pub fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.to_owned(), value.clone());
        Some(value)
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// As [`Generations::get`], to change it in place.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let young = self.young.contains_key(key);
        match young {
            true => self.young.get_mut(key),
            false => self.old.get_mut(key),
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.young.retain(&mut keep);
        self.old.retain(keep);
    }

    pub fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_keeps_what_is_used() {
        let mut cache = Generations::new(8);
        for key in 0..100 {
            cache.insert(key, key);
            assert_eq!(cache.get(&0), Some(0), "used all the time, after {key}");
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.get(&1), None);
        cache.remove(&0);
        assert_eq!(cache.get(&0), None);
        assert_eq!(cache.get_mut(&0), None);
        for key in 99..103 {
            cache.insert(key, key);
        }
        *cache.get_mut(&99).unwrap() = 7;
        cache.retain(|key, _| *key != 100);
        assert_eq!((cache.get(&99), cache.get(&100)), (Some(7), None));
    }
}
