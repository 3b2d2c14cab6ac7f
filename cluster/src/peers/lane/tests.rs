use std::collections::{BTreeMap, VecDeque};

use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64, of Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }
}

fn header(len: usize) -> Header {
    let id = |key| ActorId::new(TypeId(7), Key(key));
    Header::new(Kind::Tell, id(1), id(2), len, Hlc(3))
}

const PLAIN: Envelope = Envelope { hops: 0, numbered: None };

fn numbered(number: u64) -> Envelope {
    Envelope { hops: 0, numbered: Some(Numbered { from: 3, to: 4, number }) }
}

fn push(out: &mut Outbound, envelope: Envelope, value: u64) {
    out.push(envelope, &header(8), &value.to_le_bytes());
}

/// The receiving node: what it has handed on, and what of that it has durably.
#[derive(Default)]
struct Receiver {
    run: u64,
    inbound: Inbound,
    plain: Vec<u64>,
    numbered: Vec<u64>,
    /// The mark of its device, and that of the last checkpoint of it.
    taken: u64,
    covered: u64,
}

impl Receiver {
    fn take(&mut self, stream: u64, header: &FrameHeader, body: &[u8]) -> bool {
        let all: Vec<_> = messages(body, header.count).unwrap().collect();
        match self.inbound.takes(stream, header).unwrap() {
            Taken::Over => return false,
            Taken::Before => return true,
            Taken::New => {}
        }
        for (envelope, _, payload) in all {
            let value = u64::from_le_bytes(payload.try_into().unwrap());
            match envelope.numbered {
                None => self.plain.push(value),
                Some(Numbered { number, .. }) if number > self.taken => {
                    self.taken = number;
                    self.numbered.push(value);
                }
                Some(_) => {}
            }
        }
        true
    }

    /// Ends and starts again at its last checkpoint.
    fn restart(&mut self) {
        self.run += 1;
        self.inbound = Inbound::default();
        self.taken = self.covered;
        self.numbered.truncate(self.covered as usize);
        self.plain.clear();
    }
}

/// Streams that break at any moment with what is on its way, acknowledgements that are lost, a receiver that ends and goes on from
/// a checkpoint: while it lives everything arrives once and in order, and what is numbered does so in any case.
#[test]
fn what_streams_lose_arrives_once_and_in_order() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let restarts = seed % 2 == 1;
        let (mut out, mut to) = (Outbound::default(), Receiver::default());
        // What the sending device keeps of what it numbered.
        let mut kept: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut plain, mut given, mut run_began) = (0, 0, 0);
        let mut stream: Option<u64> = None;
        // On their way, of the present stream and of earlier ones.
        let mut frames: VecDeque<(u64, FrameHeader, Bytes)> = VecDeque::new();
        let mut acks: VecDeque<u64> = VecDeque::new();
        for step in 0.. {
            let ends = step > 400;
            match random.below(12) {
                0..3 if !ends => {
                    plain += 1;
                    push(&mut out, PLAIN, plain);
                }
                3 | 4 if !ends => {
                    given += 1;
                    kept.insert(given, given);
                    push(&mut out, numbered(given), given);
                }
                5 if stream.is_some() && !ends => {
                    stream = None;
                    acks.clear();
                    // Some of it may arrive yet, after the next stream has begun.
                    frames.truncate(random.below(frames.len() as u64 + 1) as usize);
                }
                6 if restarts && !ends && random.below(4) == 0 => {
                    to.restart();
                    stream = None;
                    acks.clear();
                    frames.clear();
                    run_began = plain;
                }
                7 => {
                    // A checkpoint of the receiver's, which its sender hears of.
                    to.covered = to.taken;
                    kept.retain(|number, _| *number > to.covered);
                }
                8 if stream.is_none() => {
                    stream = Some(to.inbound.begins(1));
                    if out.welcomed(to.run, to.inbound.taken()).unwrap() {
                        kept.iter().for_each(|(number, value)| push(&mut out, numbered(*number), *value));
                    }
                }
                9 | 10 => {
                    if let Some(number) = stream
                        && let Some((header, body)) = out.next_to_write()
                    {
                        frames.push_back((number, header, body));
                    } else if let Some(acked) = acks.pop_front() {
                        out.acked(acked).unwrap();
                    }
                }
                _ => {
                    if let Some((number, header, body)) = frames.pop_front()
                        && to.take(number, &header, &body)
                        && stream == Some(number)
                    {
                        acks.push_back(to.inbound.taken());
                    }
                }
            }
            if ends && out.is_empty() {
                break;
            }
            assert!(step < 100_000, "seed {seed}: it does not come to an end: {out:?}");
        }
        assert!(to.numbered.iter().copied().eq(1..=given), "seed {seed}: {:?}", to.numbered);
        if run_began == 0 && to.run == 0 {
            assert!(to.plain.iter().copied().eq(1..=plain), "seed {seed}: {:?}", to.plain);
        } else {
            // Behind a restart: what was not acknowledged before it, and all that came after, once and in order.
            let tail: Vec<u64> = to.plain.iter().copied().filter(|value| *value > run_began).collect();
            assert!(tail.iter().copied().eq(run_began + 1..=plain), "seed {seed}: {:?}", to.plain);
            assert!(to.plain.is_sorted_by(|a, b| a < b), "seed {seed}: {:?}", to.plain);
        }
        assert_eq!(out.bytes(), 0);
    }
}

#[test]
fn a_lone_message_is_a_batch_and_what_gathers_is_one_too() {
    let mut out = Outbound::default();
    out.welcomed(1, 0).unwrap();
    push(&mut out, PLAIN, 1);
    let (first, _) = out.next_to_write().unwrap();
    assert_eq!((first.count, first.mark, first.release), (1, 1, 0));
    (2..=5).for_each(|value| push(&mut out, PLAIN, value));
    let (second, body) = out.next_to_write().unwrap();
    assert_eq!((second.count, second.mark, second.len as usize), (4, 2, body.len()));
    assert_eq!(out.next_to_write(), None);
    out.acked(1).unwrap();
    push(&mut out, PLAIN, 6);
    assert_eq!(out.next_to_write().unwrap().0.release, 1);
    assert_eq!(out.acked(4), Err(Wrong::Acked { acked: 4, sent: 3 }));
}

#[test]
fn batches_fit_their_frames_whatever_is_in_them() {
    let mut out = Outbound::default();
    for len in [1, 60_000, 65_535, 65_535, 3, 65_000] {
        out.push(PLAIN, &header(len), &vec![7; len]);
    }
    out.welcomed(1, 0).unwrap();
    let (mut count, mut bytes) = (0, 0);
    while let Some((header, body)) = out.next_to_write() {
        assert_eq!(FrameHeader::from_bytes(&header.to_bytes()), Ok(header));
        assert_eq!(messages(&body, header.count).unwrap().count(), header.count as usize);
        (count, bytes) = (count + header.count, bytes + body.len());
    }
    assert_eq!((count, bytes), (6, out.bytes()));
}

#[test]
fn what_is_given_up_is_a_letter_or_comes_again_with_the_next_welcome() {
    let mut out = Outbound::default();
    let mut to = Receiver::default();
    let stream = to.inbound.begins(1);
    assert!(!out.welcomed(0, 0).unwrap(), "nothing was given up");
    push(&mut out, PLAIN, 1);
    let (header, body) = out.next_to_write().unwrap();
    assert!(to.take(stream, &header, &body));
    // It is not told of that.
    push(&mut out, PLAIN, 2);
    push(&mut out, numbered(1), 1);
    let mut letters = Vec::new();
    out.give_up(|_, _, payload| letters.push(u64::from_le_bytes(payload.try_into().unwrap())));
    assert_eq!((letters, out.bytes()), (vec![1, 2], 0));
    push(&mut out, PLAIN, 3);
    let stream = to.inbound.begins(1);
    assert!(out.welcomed(0, to.inbound.taken()).unwrap());
    push(&mut out, numbered(1), 1);
    let (header, body) = out.next_to_write().unwrap();
    assert!(to.take(stream, &header, &body));
    assert_eq!((&to.plain[..], &to.numbered[..]), (&[1, 3][..], &[1][..]));
}

#[test]
fn what_is_no_batch_is_refused() {
    let mut out = Outbound::default();
    push(&mut out, numbered(9), 1);
    let (header, body) = out.next_to_write().unwrap();
    assert_eq!(messages(&body, header.count + 1).err(), Some(Wrong::Batch));
    assert_eq!(messages(&body[..body.len() - 8], header.count).err(), Some(Wrong::Batch));
    for at in [1, 6, 7] {
        let mut bytes = body.to_vec();
        bytes[at] = 2;
        assert_eq!(messages(&bytes, header.count).err(), Some(Wrong::Batch), "byte {at}");
    }
    let mut ask = Outbound::default();
    ask.push(PLAIN, &self::header(0).with_kind(Kind::Ask), &[]);
    let (header, body) = ask.next_to_write().unwrap();
    assert_eq!(messages(&body, header.count).err(), Some(Wrong::Kind));

    let mut inbound = Inbound::default();
    let stream = inbound.begins(1);
    let batch = |mark, release| FrameHeader { mark, release, ..FrameHeader::default() };
    assert_eq!(inbound.takes(stream, &batch(5, 4)), Ok(Taken::New), "the first may be any");
    assert_eq!(inbound.takes(stream, &batch(7, 4)), Err(Wrong::Gap { taken: 5, got: 7 }));
    assert_eq!(inbound.takes(stream, &batch(7, 6)), Ok(Taken::New), "those between were given up");
    assert_eq!(inbound.takes(stream, &batch(7, 6)), Ok(Taken::Before));
    assert_eq!(inbound.begins(1), stream + 1);
    assert_eq!(inbound.takes(stream, &batch(8, 6)), Ok(Taken::Over));

    let mut body = Vec::new();
    let mark = DeviceMark { from: 1, to: 2, taken: 3, covered: u64::MAX };
    mark.push(&mut body);
    assert_eq!(DeviceMark::read(&body), Ok(vec![mark]));
    assert_eq!(DeviceMark::read(&body[1..]), Err(Wrong::Marks));
}
