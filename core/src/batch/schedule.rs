//! Who is next: of the images that share something, one goes alone until it is made, then the others together.

use std::collections::{HashMap, VecDeque};

/// What images have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// Nobody has made it yet.
    Fresh,
    /// It is being made, by this image.
    Led(usize),
    /// It is there.
    Open,
}

/// The images that wait.
#[derive(Debug)]
pub(super) struct Schedule {
    waiting: VecDeque<usize>,
    /// The shares of each image.
    of: Vec<Vec<usize>>,
    shares: Vec<Share>,
}

impl Schedule {
    /// All images wait, in this order, each with the names of what it shares.
    pub(super) fn new<'a>(images: impl IntoIterator<Item = &'a [String]>) -> Self {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut of = Vec::new();
        for names in images {
            let number = |name: &'a String| {
                let next = numbers.len();
                *numbers.entry(name).or_insert(next)
            };
            of.push(names.iter().map(number).collect::<Vec<usize>>());
        }
        Self { waiting: (0..of.len()).collect(), shares: vec![Share::Fresh; numbers.len()], of }
    }

    /// Takes the first image that need not wait for another.
    pub(super) fn next(&mut self) -> Option<usize> {
        let free =
            |image: &usize| self.of[*image].iter().all(|share| !matches!(self.shares[*share], Share::Led(_)));
        let place = self.waiting.iter().position(free)?;
        let image = self.waiting.remove(place)?;
        for share in &self.of[image] {
            if self.shares[*share] == Share::Fresh {
                self.shares[*share] = Share::Led(image);
            }
        }
        Some(image)
    }

    /// An image has ended. If it was not made, somebody else must make what it shares.
    pub(super) fn ended(&mut self, image: usize, made: bool) {
        for share in &self.of[image] {
            if self.shares[*share] == Share::Led(image) {
                self.shares[*share] = if made { Share::Open } else { Share::Fresh };
            }
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(images: &[&[&str]]) -> Schedule {
        let images: Vec<Vec<String>> =
            images.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect();
        Schedule::new(images.iter().map(Vec::as_slice))
    }

    #[test]
    fn the_first_goes_alone_then_the_others_together() {
        let mut schedule = schedule(&[&["a"], &["a"], &["b"], &["a"], &[]]);
        assert_eq!(
            [schedule.next(), schedule.next(), schedule.next(), schedule.next()],
            [Some(0), Some(2), Some(4), None]
        );
        schedule.ended(4, true);
        assert_eq!(schedule.next(), None);
        schedule.ended(0, true);
        assert_eq!([schedule.next(), schedule.next(), schedule.next()], [Some(1), Some(3), None]);
        assert_eq!(schedule.waiting(), 0);
    }

    #[test]
    fn who_was_not_made_leads_no_more() {
        let mut schedule = schedule(&[&["a"], &["a"], &["a"]]);
        assert_eq!([schedule.next(), schedule.next()], [Some(0), None]);
        schedule.ended(0, false);
        assert_eq!([schedule.next(), schedule.next()], [Some(1), None]);
        schedule.ended(1, true);
        assert_eq!(schedule.next(), Some(2));
    }

    #[test]
    fn each_share_has_its_own_first() {
        let mut schedule = schedule(&[&["c", "x"], &["c", "x"], &["c", "y"], &["c", "y"]]);
        assert_eq!([schedule.next(), schedule.next()], [Some(0), None]);
        schedule.ended(0, true);
        assert_eq!([schedule.next(), schedule.next(), schedule.next()], [Some(1), Some(2), None]);
        schedule.ended(2, true);
        assert_eq!(schedule.next(), Some(3));
    }
}
