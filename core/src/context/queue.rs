//! What the threads of a walk have before them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The directories that wait to be read, and how many are being read. Nothing more can come when
/// both are zero.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: Vec<T>,
    active: usize,
    /// Threads that wait for work.
    idle: usize,
    stopped: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { waiting: Vec::new(), active: 0, idle: 0, stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds a directory.
    pub(super) fn push(&self, directory: T) {
        let mut state = self.lock();
        state.waiting.push(directory);
        // Waking nobody is a system call too.
        if state.idle > 0 {
            self.changed.notify_one();
        }
    }

    /// Waits for a directory; `None` when there will be none.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(directory) = state.waiting.pop() {
                state.active += 1;
                return Some(directory);
            }
            if state.active == 0 {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Says that a directory from [`Queue::pop`] has been read, or that the walk has failed.
    pub(super) fn done(&self, failed: bool) {
        let mut state = self.lock();
        state.active -= 1;
        state.stopped |= failed;
        if state.active == 0 || state.stopped {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
