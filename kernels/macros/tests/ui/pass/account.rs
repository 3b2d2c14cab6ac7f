//! The actor of the design document.

#[ringhold::actor]
pub mod account {
    pub struct State {
        pub balance: i64,
        pub operations: u32,
    }

    pub enum Message {
        Deposit { cents: i64 },
        Withdraw { cents: i64 },
        Read,
    }

    pub enum Reply {
        Balance { cents: i64 },
        Refused { short_by: i64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Deposit { cents } => state.balance += cents,
            Message::Withdraw { cents } if state.balance < cents => {
                ctx.reply(Reply::Refused { short_by: cents - state.balance });
                return;
            }
            Message::Withdraw { cents } => state.balance -= cents,
            Message::Read => {}
        }
        state.operations += 1;
        ctx.reply(Reply::Balance { cents: state.balance });
    }
}

fn main() {}
