"""Every operation that `structure` follows: cut networks compute what masked ones do, and dead channels stay dead."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import SqueezeExcitation, StochasticDepth

from shared.errors import BadInput
from shared.networks import active_widths, compact, resized, structure, zero_channels


class Around(nn.Module):
    """Something between two convolutions with batch norm: `inside(network, maps)` on 12 maps of 8 x 6 pixels.

    12 and 10 channels are its units where nothing inside adds any.
    """

    input_shape = (3, 8, 6)

    def __init__(self, inside, outputs=12, **modules):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        for name, module in modules.items():
            setattr(self, name, module)
        self.second, self.second_norm = nn.Conv2d(outputs, 10, 1), nn.BatchNorm2d(10)
        self.head = nn.Linear(10, 4)
        self.inside = inside

    def forward(self, images):
        maps = self.inside(self, torch.relu(self.first_norm(self.first(images))))
        return self.head(torch.relu(self.second_norm(self.second(maps))).mean((2, 3)))


class Behind(Around):
    """Something between the last map and the output: `inside(network, maps)`; without `head` where it has an `fc`."""

    def __init__(self, inside, **modules):
        super().__init__(inside, **modules)
        if "fc" in modules:
            del self.head

    def forward(self, images):
        maps = torch.relu(self.first_norm(self.first(images)))
        return self.inside(self, torch.relu(self.second_norm(self.second(maps))))


def conv(inputs, outputs, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


PLAIN = (12, 10)
# name -> (module, the dense widths)
FORMS = {
    **{
        f"activation {type(module).__name__}": (Around(lambda net, x: net.act(x), act=module), PLAIN)
        for module in (
            *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.PReLU(12), nn.SiLU(), nn.Hardswish(), nn.GELU()),
            *(nn.ELU(), nn.CELU(), nn.SELU(), nn.Mish(), nn.Tanh(), nn.Softsign(), nn.Hardtanh(), nn.Identity()),
        )
    },
    "slopes per channel": (
        Around(lambda net, x: net.act(x - 0.5 * x.amax((2, 3), keepdim=True)), act=nn.PReLU(12)),
        PLAIN,
    ),
    **{
        f"function {function.__name__}": (Around(lambda net, x, function=function: function(x)), PLAIN)
        for function in (
            F.relu,
            F.relu6,
            F.leaky_relu,
            F.silu,
            F.hardswish,
            F.gelu,
            F.elu,
            F.mish,
            torch.tanh,
            F.hardtanh,
        )
    },
    "methods": (Around(lambda net, x: x.tanh().abs().clamp(0, 6).relu().clone().contiguous()), PLAIN),
    # a removed channel leaves a constant, so the layer behind fixes it
    "sigmoid": (Around(lambda net, x: torch.sigmoid(x)), (10,)),
    "hard sigmoid": (Around(lambda net, x: F.hardsigmoid(x)), (10,)),
    "softplus": (Around(lambda net, x: net.act(x), act=nn.Softplus()), (10,)),
    "a bound above zero": (Around(lambda net, x: x.clamp(min=0.1)), (10,)),
    "a constant added": (Around(lambda net, x: x + 1), (10,)),
    "nothing added": (Around(lambda net, x: x + 0.0), PLAIN),
    # unless a layer of its own takes the constant away again
    "sigmoid before batch norm": (Around(lambda net, x: net.norm(x.sigmoid()), norm=nn.BatchNorm2d(12)), PLAIN),
    "sigmoid as a gate": (Around(lambda net, x: x * x.sigmoid()), PLAIN),
    "a constant factor": (Around(lambda net, x: 2 * x / 255 * 3), PLAIN),
    "factors per channel": (Around(lambda net, x: x * net.scale, scale=nn.Parameter(torch.rand(12, 1, 1))), PLAIN),
    "offsets per channel": (Around(lambda net, x: x + net.offset, offset=nn.Parameter(torch.rand(1, 12, 8, 6))), PLAIN),
    "offsets per pixel": (Around(lambda net, x: x + net.offset, offset=nn.Parameter(torch.rand(8, 6))), (10,)),
    "batch norm without weights": (Around(lambda net, x: net.norm(x), norm=nn.BatchNorm2d(12, affine=False)), (10,)),
    "group norm": (Around(lambda net, x: net.norm(x), norm=nn.GroupNorm(4, 12)), (4, 10)),
    "group norm without weights": (Around(lambda net, x: net.norm(x), norm=nn.GroupNorm(4, 12, affine=False)), (4, 10)),
    "layer norm": (Around(lambda net, x: net.norm(x), norm=nn.LayerNorm([12, 8, 6])), (10,)),
    "instance norm": (Around(lambda net, x: net.norm(x), norm=nn.InstanceNorm2d(12)), PLAIN),
    "instance norm with weights": (Around(lambda net, x: net.norm(x), norm=nn.InstanceNorm2d(12, affine=True)), PLAIN),
    "batch norm behind a sigmoid": (
        Around(lambda net, x: net.act(net.norm(x.sigmoid())), norm=nn.BatchNorm2d(12), act=nn.SiLU()),
        PLAIN,
    ),
    "F.batch_norm": (
        Around(
            lambda net, x: F.batch_norm(x, net.mean, net.var, net.scale, net.shift),
            scale=nn.Parameter(torch.rand(12)),
            shift=nn.Parameter(torch.rand(12)),
            mean=nn.Buffer(torch.rand(12)),
            var=nn.Buffer(torch.rand(12) + 0.5),
        ),
        PLAIN,
    ),
    "F.conv2d": (
        Around(lambda net, x: F.conv2d(x, net.w, padding=1), w=nn.Parameter(torch.rand(12, 12, 3, 3) - 0.5)),
        (12, 12, 10),
    ),
    "F.conv_transpose2d": (
        Around(lambda net, x: F.conv_transpose2d(x, net.w, stride=2), w=nn.Parameter(torch.rand(12, 12, 2, 2) - 0.5)),
        (12, 12, 10),
    ),
    "grouped convolution": (Around(lambda net, x: net.conv(x), conv=conv(12, 12, groups=4)), (4, 10)),
    "groups that widen": (Around(lambda net, x: net.conv(x), 24, conv=conv(12, 24, groups=3)), (3, 10)),
    "groups of two sizes": (
        Around(lambda net, x: net.b(net.a(x)), a=conv(12, 12, groups=6), b=conv(12, 12, groups=4)),
        (2, 10),
    ),
    "depthwise": (Around(lambda net, x: net.conv(x), conv=conv(12, 12, groups=12)), PLAIN),
    "depthwise that doubles": (Around(lambda net, x: net.conv(x), 24, conv=conv(12, 24, groups=12)), PLAIN),
    "transposed groups": (
        Around(lambda net, x: net.conv(x), 8, conv=nn.ConvTranspose2d(12, 8, 2, stride=2, groups=4)),
        (4, 10),
    ),
    "transposed depthwise": (
        Around(lambda net, x: net.conv(x), conv=nn.ConvTranspose2d(12, 12, 2, stride=2, groups=12)),
        PLAIN,
    ),
    "pixel shuffle": (Around(lambda net, x: net.up(x), 3, up=nn.PixelShuffle(2)), (3, 10)),
    "squeeze and excite": (Around(lambda net, x: net.se(x), se=SqueezeExcitation(12, 5)), (12, 5, 10)),
    "one map for all channels": (
        Around(lambda net, x: x * net.gate(x).sigmoid(), gate=nn.Conv2d(12, 1, 1)),
        (12, 10),
    ),
    "concatenation": (
        Around(lambda net, x: torch.cat([net.a(x), x, net.b(x)], 1), 12 + 5 + 7, a=conv(12, 5), b=conv(12, 7)),
        (12, 5, 7, 10),
    ),
    "the same twice": (Around(lambda net, x: torch.concat([x, x], -3), 24), PLAIN),
    "concatenation with the batch norm of all": (
        Around(lambda net, x: net.n(torch.cat([x, net.a(x)], 1)), 17, a=conv(12, 5), n=nn.BatchNorm2d(17)),
        (12, 5, 10),
    ),
    "densely connected": (
        Around(
            lambda net, x: torch.cat([y := torch.cat([x, net.a(F.relu(x))], 1), net.b(F.relu(y))], 1),
            12 + 5 + 7,
            a=conv(12, 5),
            b=conv(17, 7),
        ),
        (12, 5, 7, 10),
    ),
    "depthwise over a concatenation": (
        Around(lambda net, x: net.d(torch.cat([x, net.a(x)], 1)), 17, a=conv(12, 5), d=conv(17, 17, groups=17)),
        (12, 5, 10),
    ),
    "a sum of concatenations": (
        Around(
            lambda net, x: torch.cat([x, net.a(x)], 1) + torch.cat([net.b(x), net.c(x)], 1),
            17,
            a=conv(12, 5),
            b=conv(12, 12),
            c=conv(12, 5),
        ),
        (12, 5, 10),
    ),
    "a sum that divides a segment": (
        Around(lambda net, x: torch.cat([x, net.a(x)], 1) + net.b(x), 17, a=conv(12, 5), b=conv(12, 17)),
        (10,),
    ),
    "along the rows": (Around(lambda net, x: torch.cat([x, net.a(x)], 2), a=conv(12, 12)), PLAIN),
    "a sum with one value per channel": (Around(lambda net, x: x + F.adaptive_avg_pool2d(x, 1)), PLAIN),
    "a difference": (Around(lambda net, x: x - net.a(x), a=conv(12, 12)), PLAIN),
    "a weighted sum": (Around(lambda net, x: torch.add(x, net.a(x), alpha=2), a=conv(12, 12)), PLAIN),
    "a product of maps": (Around(lambda net, x: operator.imul(net.a(x), x), a=conv(12, 12)), PLAIN),
    "pooling": (
        Around(
            lambda net, x: F.avg_pool2d(
                F.max_pool2d(F.adaptive_max_pool2d(x, (8, 8)), 3, 2, 1), 2, count_include_pad=False
            )
        ),
        PLAIN,
    ),
    "other maps": (Around(lambda net, x: F.pad(x.transpose(2, 3)[:, :, 1:, ::2], (1, 1, 0, 2), "replicate")), PLAIN),
    "a padded constant": (Around(lambda net, x: F.pad(x, (1, 1), value=0.5)), (10,)),
    "upsampling": (Around(lambda net, x: F.interpolate(x, size=x.shape[2:], mode="bilinear")), PLAIN),
    "channels that move": (Around(lambda net, x: net.shuffle(x), shuffle=nn.ChannelShuffle(3)), (10,)),
    "channels split": (Around(lambda net, x: torch.cat([x.chunk(2, 1)[1], x.split([6, 6], 1)[0].relu()], 1)), (10,)),
    "channels cut off": (Around(lambda net, x: x[:, :8], 8), (10,)),
    "channels added by padding": (Around(lambda net, x: F.pad(x, (0, 0, 0, 0, 1, 1)), 14), (10,)),
    "a mean over channels": (Around(lambda net, x: x - x.mean(1, keepdim=True)), (10,)),
    "random depth": (
        Around(lambda net, x: x + net.drop(net.a(x)), a=conv(12, 12), drop=StochasticDepth(0.0, "row")),
        PLAIN,
    ),
    "nothing": (
        Around(lambda net, x: F.dropout(net.drop(x), 0.0, net.training).to(x.dtype), drop=nn.Dropout2d(0.0)),
        PLAIN,
    ),
    "a convolution's subclass": (
        Around(lambda net, x: net.conv(x), conv=type("Same", (nn.Conv2d,), {})(12, 12, 1)),
        (12, 12, 10),
    ),
    # numbers and tensors that do not follow the widths fix what they were read from
    "another type": (Around(lambda net, x: x + net.a(x).type_as(x), a=conv(12, 12)), PLAIN),
    "data beside the graph": (Around(lambda net, x: x + net.a(x).data, a=conv(12, 12)), (10,)),
    "expanded by a number": (Around(lambda net, x: F.adaptive_avg_pool2d(x, 1).expand(-1, 12, 8, 6)), (10,)),
    "expanded": (Around(lambda net, x: F.adaptive_avg_pool2d(x, 1).expand(-1, -1, 8, 6)), PLAIN),
    "expanded as another": (
        Around(lambda net, x: torch.cat([x, net.a(x).expand_as(x)], 1), 24, a=nn.Conv2d(12, 1, 1)),
        (10,),
    ),
    "divided by the number of channels": (Around(lambda net, x: x / x.size(1)), (10,)),
    "scaled by a power of it": (Around(lambda net, x: x * x.shape[1] ** -0.5), (10,)),
    "shaped by another's number": (
        Around(lambda net, x: (y := net.a(x)).view(y.size(0), x.size(1), 8, 6), a=conv(12, 12)),
        (10,),
    ),
    "squeezed where it has channels": (Around(lambda net, x: x.squeeze(1)), (10,)),
    "divided by a parameter": (Around(lambda net, x: x / net.w, w=nn.Parameter(torch.rand(12, 1, 1) + 1)), (10,)),
    "a factor by keyword": (
        Around(lambda net, x: torch.mul(x, other=net.w), w=nn.Parameter(torch.rand(12, 1, 1))),
        PLAIN,
    ),
    "scaled by another layer's weights": (
        Around(lambda net, x: net.a(x) * net.first_norm.weight.view(1, -1, 1, 1), a=conv(12, 12)),
        (10,),
    ),
    "scaled by numbers that the pass makes": (Around(lambda net, x: x * torch.arange(12.0).view(12, 1, 1)), (10,)),
    "pooled to a larger map": (Behind(lambda net, x: net.head(F.adaptive_avg_pool2d(x, 11).amax((2, 3)))), PLAIN),
    "scaled by a mean of weights": (Around(lambda net, x: x * net.first.weight.mean()), (10,)),
    "a factor that is computed": (
        Around(lambda net, x: x * net.w.sigmoid(), w=nn.Parameter(torch.rand(12, 1, 1))),
        (10,),
    ),
    # flattening
    **{
        f"flattened by {name}": (
            Behind(lambda net, x, flatten=flatten: net.fc(flatten(x)), fc=nn.Linear(480, 4)),
            PLAIN,
        )
        for name, flatten in {
            "view": lambda x: x.view(x.size(0), -1),
            "reshape": lambda x: x.reshape(x.shape[0], -1),
            "sizes": lambda x: x.view(-1, x.size(1) * x.shape[2] * x.size(3)),
            "numel": lambda x: torch.reshape(x, (x.size(0), x.numel() // x.size(0))),
            "numel of a shape": lambda x: x.view(x.shape[0], x.shape[1:].numel()),
            "flatten": lambda x: x.flatten(1),
            "torch.flatten": lambda x: torch.flatten(x, start_dim=1),
        }.items()
    },
    # the number in the code holds for the dense network alone
    "flattened by a number": (Behind(lambda net, x: net.fc(x.view(-1, 480)), fc=nn.Linear(480, 4)), (12,)),
    "flattened by a product of a number": (
        Behind(lambda net, x: net.fc(x.view(-1, 10 * x.size(2) * x.size(3))), fc=nn.Linear(480, 4)),
        (12,),
    ),
    "squeezed": (Behind(lambda net, x: net.head(x.mean(3).amax(2, keepdim=True).squeeze(-1))), PLAIN),
    # with a single channel, this would remove the channel, too
    "squeezed all over": (Behind(lambda net, x: net.head(x.mean((2, 3), keepdim=True).squeeze())), (12,)),
    "one pixel": (Behind(lambda net, x: net.head(x[:, :, 0, 0])), PLAIN),
    "one-dimensional batch norm": (
        Behind(lambda net, x: net.fc(net.n(x.flatten(1))), n=nn.BatchNorm1d(480), fc=nn.Linear(480, 4)),
        PLAIN,
    ),
    "flattened maps beside each other": (
        Behind(lambda net, x: net.fc(torch.cat([x.flatten(1), x.mean((2, 3))], 1)), fc=nn.Linear(490, 4)),
        PLAIN,
    ),
    "log of a softmax": (Behind(lambda net, x: F.log_softmax(net.head(x.mean((-1, -2))), 1)), PLAIN),
    "a softmax over channels": (Around(lambda net, x: x * torch.softmax(x, 1)), (10,)),
    "an entry of a dict": (Behind(lambda net, x: {"aux": x, "out": net.head(x.mean((2, 3)))}), PLAIN),
}


def prepared(name):
    """The network in float64, no tensor at a special value, and its structure."""
    model, bounds = FORMS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    if tensor.is_floating_point():
                        nn.init.uniform_(tensor, 0.5, 1.5)
    return model.double(), structure(model), bounds


def images(model, count=4):
    return torch.randn(count, *model.input_shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@torch.no_grad()
def outputs(model, train):
    result = model.train(train)(images(model))
    return result["out"] if isinstance(result, dict) else result


def counted_macs(model):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(images(model, 2))
    return counter.get_total_flops() // 4  # two operations each, two images


@pytest.mark.parametrize("name", FORMS)
def test_cut_and_masked_networks_agree(name, random_dead):
    model, table, bounds = prepared(name)
    assert table.upper_bounds == bounds
    assert table.macs(bounds).item() == counted_macs(model)
    used = {tensor for unit in table.units for part in unit.slices for tensor in (part.tensor,)}
    assert used <= set(model.state_dict())
    for seed in range(3):
        widths = [1 + (7 * unit + 3 * seed) % bound for unit, bound in enumerate(bounds)]
        masked = copy.deepcopy(model)
        zero_channels(masked, table, random_dead(table, widths, seed))
        assert active_widths(masked) == tuple(widths)
        small = compact(masked, table)
        assert structure(small).upper_bounds == tuple(widths)
        if 1 not in widths:  # a parameter for a single channel can't be told from one for all
            assert structure(small) == table.at(widths)
        assert table.macs(widths).item() == counted_macs(small)
        assert table.parameters(widths).item() == sum(parameter.numel() for parameter in small.parameters())
        for train in (False, True):
            expected, got = outputs(copy.deepcopy(masked), train), outputs(copy.deepcopy(small), train)
            assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", FORMS)
def test_dead_channels_stay_dead_through_training(name, random_dead):
    model, table, bounds = prepared(name)
    model = copy.deepcopy(model).train()
    widths = [1 + bound // 2 for bound in bounds]
    zero_channels(model, table, random_dead(table, [min(w, b) for w, b in zip(widths, bounds, strict=True)], 0))
    zeroed = {key: parameter.detach() == 0 for key, parameter in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        result = model(images(model) + step)
        (result["out"] if isinstance(result, dict) else result).square().mean().backward()
        optimizer.step()
    for key, parameter in model.named_parameters():
        assert not parameter.detach()[zeroed[key]].any()


@pytest.mark.parametrize("name", FORMS)
def test_a_network_is_resized_to_its_first_channels(name):
    model, table, bounds = prepared(name)
    widths = [1 + bound // 3 for bound in bounds]
    widths = [min(width, bound) for width, bound in zip(widths, bounds, strict=True)]
    small = resized(model, widths)
    assert structure(small) == table.at(widths)
    assert outputs(small, False).shape == outputs(copy.deepcopy(model), False).shape
    for key, tensor in small.state_dict().items():
        whole = model.state_dict()[key]
        if tensor.shape == whole.shape:
            assert torch.equal(tensor, whole)


class OnTheImage(nn.Module):
    """Layers whose channels stay, on an image of 6 channels; then a convolution, where one is given."""

    input_shape = (6, 8, 8)

    def __init__(self, inside, behind=None):
        super().__init__()
        self.inside, self.behind = inside, behind or nn.Identity()

    def forward(self, images):
        return self.behind(self.inside(images))


@pytest.mark.parametrize(
    ("inside", "behind"),
    [
        (nn.Conv2d(6, 3, 3, groups=3), conv(3, 8)),
        (nn.Conv2d(6, 9, 3, groups=3), conv(9, 8)),
        (nn.Conv2d(6, 12, 3, groups=6), conv(12, 8)),
        (nn.Sequential(conv(6, 12), nn.PixelShuffle(2)), conv(3, 8)),
        (nn.Sequential(conv(6, 12), nn.LayerNorm([12, 8, 8])), nn.Conv2d(12, 4, 3, groups=4)),
        (nn.Sequential(conv(6, 20), nn.ReLU()), nn.Conv2d(20, 10, 1, groups=2)),
        (conv(6, 10), nn.GroupNorm(2, 10)),
        (conv(6, 5), nn.Conv2d(5, 10, 3, groups=5)),
        (conv(6, 5), nn.Flatten()),
    ],
)
def test_channels_that_stay_are_counted_right(inside, behind):
    model = OnTheImage(inside, behind).double()
    table = structure(model)
    assert table.macs(table.upper_bounds).item() == counted_macs(model)
    assert table.parameters(table.upper_bounds).item() == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        (lambda net, x: F.conv2d(x, net.kernel), "computed ones, or buffers"),
        (lambda net, x: (torch.relu_(x), x)[1], "one that works in place"),
        (lambda net, x: (x.sigmoid_(), x)[1], "one that works in place"),
        (lambda net, x: torch.cat([net.norm(x), net.norm(net.a(x))], 1), "'norm' called twice"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(inside, words):
    parts = {
        "a": conv(12, 12),
        "norm": nn.GroupNorm(4, 12, affine=False),
        "kernel": nn.Buffer(torch.rand(12, 12, 1, 1)),
    }
    with pytest.raises(BadInput, match=words):
        structure(Around(inside, **parts))


def test_a_parameter_under_two_names_is_refused():
    model = Around(lambda net, x: x * net.other, scale=nn.Parameter(torch.rand(12, 1, 1)))
    model.other = model.scale
    with pytest.raises(BadInput, match="'scale' and 'other' in one"):
        structure(model)
