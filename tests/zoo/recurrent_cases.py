"""What is to be found in the networks of `recurrent`."""

import torch
from torch import nn

from zoo import recurrent as rec
from zoo.case import case, given, ids


def layer(directions="", layers="0"):
    """Places of the hidden size in a layer of torch.nn called `rnn`, but for what reads the layer below."""
    suffix = f"_l{{{layers}}}{directions}"
    return f"rnn.{{weight_ih,weight_hh,bias_ih,bias_hh}}{suffix}[0] rnn.weight_hh{suffix}[1]"


SEQUENCE = given((7, 2, 5))
BATCH_FIRST = given((2, 7, 5))
CELL = "cell.{weight_ih,weight_hh,bias_ih,bias_hh}[0] cell.weight_hh[1]"
LOW = CELL.replace("cell", "first")
MATCHED = "{weight_ih,weight_hh,bias_ih,bias_hh}_l0[0]"

CASES = (
    case(
        "rnn",
        lambda hidden=6: rec.LastState(nn.RNN(5, hidden), hidden),
        SEQUENCE,
        {"hidden": layer() + " out.weight[1]"},
        fixed={"rnn.weight_ih_l0[1]": "input", "out.{wb}[0]": "output"},
    ),
    case(
        "rnn_learned_start",
        rec.LearnedStart,
        SEQUENCE,
        {"hidden": layer() + " start[2] out.weight[1]"},
    ),
    case(
        "gru",
        lambda hidden=6: rec.LastState(nn.GRU(5, hidden, batch_first=True), hidden, batch_first=True),
        BATCH_FIRST,
        {"hidden": layer() + " out.weight[1]"},
    ),
    case(
        "lstm",
        lambda hidden=6: rec.LastState(nn.LSTM(5, hidden), hidden),
        SEQUENCE,
        {"hidden": layer() + " out.weight[1]"},
    ),
    case(
        "lstm_two_layers",
        lambda hidden=6: rec.LastState(nn.LSTM(5, hidden, 2, dropout=0.1, batch_first=True), hidden, True),
        BATCH_FIRST,
        {"hidden": layer(layers="0,1") + " rnn.weight_ih_l1[1] out.weight[1]"},
    ),
    case(
        "lstm_bidirectional",
        lambda hidden=6: rec.EveryState(nn.LSTM(5, hidden, bidirectional=True), hidden),
        SEQUENCE,
        {"hidden": layer("{,_reverse}") + " out.weight[1]"},
    ),
    case(
        "gru_two_layers_bidirectional",
        rec.FinalStates,
        BATCH_FIRST,
        {"hidden": layer("{,_reverse}", "0,1") + " rnn.weight_ih_l1{,_reverse}[1] out.weight[1]"},
    ),
    case(
        "lstm_projected",
        lambda hidden=10, projected=6: rec.LastState(nn.LSTM(5, hidden, proj_size=projected), projected),
        SEQUENCE,
        allowed={
            "hidden": "rnn." + MATCHED + " rnn.weight_hr_l0[1]",
            "projected": "rnn.weight_hr_l0[0] rnn.weight_hh_l0[1] out.weight[1]",
        },
    ),
    case("lstm_cell_loop", rec.LSTMLoop, SEQUENCE, {"hidden": CELL + " out.weight[1]"}),
    case(
        "gru_cell_loop",
        rec.GRULoop,
        given((4, 2, 5), (2, 10)),
        {"first": LOW + " second.weight_ih[1]"},
        fixed={"second.{weight_ih,weight_hh,bias_ih,bias_hh}[0] second.weight_hh[1]": ""},
    ),
    case(
        "handwritten_lstm",
        rec.HandwrittenLSTM,
        BATCH_FIRST,
        {"hidden": "inputs[1] states[0] states[1] bias[0] out.weight[1]"},
    ),
    case(
        "handwritten_gru",
        rec.HandwrittenGRU,
        BATCH_FIRST,
        {"hidden": "{reset,update,new}.{weight[0],weight[1],bias[0]} out.weight[1]"},
    ),
    case(
        "conv_lstm",
        rec.ConvLSTM,
        given((2, 3, 2, 6, 8)),
        {"hidden": "gates.{weight[0],weight[1],bias[0]} out.weight[1]"},
    ),
    case(
        "seq2seq_attention",
        rec.Seq2Seq,
        given(ids(11, 2, 5), ids(12, 2, 4)),
        {
            "source": "source.weight[1] encoder.weight_ih_l0[1]",
            "hidden": f"encoder.{MATCHED} encoder.weight_hh_l0[1] decoder.weight_ih[1] decoder.weight_hh[1] "
            "decoder.{weight_ih,weight_hh,bias_ih,bias_hh}[0] {key,query,out}.weight[1]",
            "target": "target.weight[1] decoder.weight_ih[1]",
            "inner": "{key,query}.{wb}[0] score.weight[1]",
        },
        fixed={"out.{wb}[0]": "output"},
    ),
    case(
        "tied_language_model",
        rec.TiedLanguageModel,
        given(ids(11, 2, 7)),
        {
            "width": "embedding.weight[1] rnn.weight_ih_l0[1] project.{wb}[0]",
            "hidden": layer() + " project.weight[1]",
        },
        fixed={"embedding.weight[0] out.bias[0]": "output"},
    ),
    # Packing is an operator of its own, one that a tracer need not know.
    case(
        "packed_sequences",
        rec.PackedSequences,
        lambda: (*given(ids(11, 3, 7))(), torch.tensor([4, 7, 2])),
        allowed={
            "width": "embedding.weight[1] rnn.weight_ih_l0[1]",
            "hidden": layer() + " out.weight[1]",
        },
        exports=False,
    ),
    case(
        "recurrent_layers_of_several_kinds",
        rec.StackedSizes,
        SEQUENCE,
        {
            "first": f"first.{MATCHED} first.weight_hh_l0[1] second.weight_ih_l0[1]",
            "second": f"{{second,third}}.{MATCHED} {{second,third}}.weight_hh_l0[1] third.weight_ih_l0[1] "
            "out.weight[1]",
        },
    ),
)
