//! Loops dealt out to the threads of an actor.

#[ringhold::actor(threads_per_actor = 1024)]
mod wide {
    pub struct Cell {
        pub heat: f32,
        pub marks: [u8; 4],
    }

    pub struct State {
        pub cells: [Cell; 100],
        pub other: [Cell; 100],
        pub grid: [[u32; 10]; 10],
        pub sum: f64,
    }

    pub enum Message {
        Set { at: u32, cell: Cell },
        Step { by: f32 },
        Count,
    }

    pub enum Reply {
        Count { hot: u32, any: bool },
    }

    impl Cell {
        fn cool(&mut self, by: f32) {
            self.heat -= by;
        }
    }

    impl State {
        fn step(&mut self, by: f32, ctx: &mut Context) {
            for i in ctx.threads(0..100) {
                self.cells[i].cool(by);
                // One's own item may be read and written as often as one likes, also through a copy of it.
                let mut cell = self.cells[i];
                cell.marks[i & 3] |= 1;
                self.cells[i] = cell;
                // Another array may be read anywhere.
                self.cells[i].heat += self.other[99 - i].heat;
            }
        }
    }

    fn largest(state: &State, ctx: &mut Context) -> f32 {
        let mut most = f32::NEG_INFINITY;
        for i in ctx.threads(0..100) {
            most = most.max(state.cells[i].heat);
        }
        most
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Set { at, cell } => state.cells[at] = cell,
            Message::Step { by } => {
                state.step(by, ctx);
                let row = 3u8;
                for i in ctx.threads(0..=9u16) {
                    // Two items of one row, in the same iteration, at its own number.
                    state.grid[row][i] = state.grid[row][i] + ctx.now() as u32;
                }
                for _ in ctx.threads(0..10) {}
                // What is only the context's in the loop, and what the loop's alone.
                let mut sum = state.sum;
                let key = ctx.id().key();
                'cells: for i in ctx.threads(0u64..100) {
                    for mark in 0..4 {
                        if state.cells[i].marks[mark] == 0 {
                            continue 'cells;
                        }
                    }
                    sum += state.cells[i].heat as f64 + (key * i) as f64;
                }
                state.sum = sum;
            }
            Message::Count => {
                let mut hot = 0;
                let mut any = false;
                let limit = largest(state, ctx) / 2.0;
                for i in ctx.threads(0..100) {
                    let is_hot = state.cells[i].heat > limit;
                    hot += is_hot as u32;
                    any |= is_hot;
                }
                ctx.reply(Reply::Count { hot, any });
            }
        }
    }
}

fn main() {}
